// render_frames on CUDA, registered with torch. The arguments are documented in
// python/camfuse/ops.py.
#include "cuda/render_frames.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "args/render_frames.h"
#include "cuda/call.h"

namespace camfuse::cuda {
namespace {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

Tensor render_frames_op(const Tensor& maps, Ints offsets, Ints sizes, const Tensor& ranges,
                        const Tensor& global_ranges, const Tensor& source, const Tensor& colours,
                        Ints panels, Ints canvas, int64_t background, double blend, bool relu,
                        std::optional<Tensor> overlay, Ints strips, int64_t pixel_layout) {
  RenderFramesCall call =
      render_frames_call(maps, offsets, sizes, ranges, global_ranges, source, colours, panels,
                         canvas, background, blend, relu, overlay, strips, pixel_layout);
  RenderFramesArgs& args = call.args;
  const Call device(maps);
  Tensor out = torch::stable::new_empty(
      source, {args.frames, bytes_of(args.layout, args.height, args.width)});
  if (args.frames == 0) return out;
  args.out = static_cast<uint8_t*>(out.mutable_data_ptr());
  const Tensor workspace =
      device.allocate({render_frames_workspace(args)}, torch::headeronly::ScalarType::Byte);
  render_frames(args, workspace.mutable_data_ptr(), device.stream());
  return out;
}

}  // namespace
}  // namespace camfuse::cuda

STABLE_TORCH_LIBRARY_IMPL(camfuse, CUDA, m) {
  m.impl("render_frames", TORCH_BOX(&camfuse::cuda::render_frames_op));
}
