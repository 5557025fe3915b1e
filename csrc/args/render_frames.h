// The arguments of render_frames, checked once for every backend.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "common/render_frames_args.h"

namespace camfuse {

// What render_frames is asked for, and what its pointers point to. `out` is the caller's to set.
struct RenderFramesCall {
  RenderFramesArgs args;
  std::vector<RenderPanel> panels;
  std::vector<RenderStrip> strips;
  std::vector<torch::stable::Tensor> tensors;  // contiguous
};

// All but the devices' kind is checked. Keeps pointers into maps, offsets and sizes.
RenderFramesCall render_frames_call(
    const torch::stable::Tensor& maps, const std::vector<int64_t>& offsets,
    const std::vector<int64_t>& sizes, const torch::stable::Tensor& ranges,
    const torch::stable::Tensor& global_ranges, const torch::stable::Tensor& source,
    const torch::stable::Tensor& colours, const std::vector<int64_t>& panels,
    const std::vector<int64_t>& canvas, int64_t background, double blend, bool relu,
    const std::optional<torch::stable::Tensor>& overlay, const std::vector<int64_t>& strips,
    int64_t pixel_layout);

}  // namespace camfuse
