// The arguments of layer_cam, and of ops built on it, checked once for every backend.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "common/layer_cam_args.h"

namespace camfuse {

// The rules of these numbers, or an error.
std::vector<Rule> checked_rules(const std::vector<int64_t>& codes);

// Shape, dtype, strides and rules, all checked; maps and ranges are the caller's to set. Gradients
// that no rule reads are left out. Keeps pointers into the arguments.
LayerCamArgs layer_cam_args(const torch::stable::Tensor& activations,
                            const std::optional<torch::stable::Tensor>& gradients,
                            const std::vector<Rule>& rules,
                            const std::optional<torch::stable::Tensor>& weights);

// Checks fused_cam's (H, W).
void check_size(const LayerCamArgs& args, const std::vector<int64_t>& size);

// The dtype of maps and ranges.
inline torch::headeronly::ScalarType map_dtype(Dtype input) {
  return input == Dtype::kF64 ? torch::headeronly::ScalarType::Double
                              : torch::headeronly::ScalarType::Float;
}

}  // namespace camfuse
