// The ops layer_cam and fused_cam for CUDA tensors: checked arguments, memory, launch.
#include "cuda/layer_cam.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "args/layer_cam.h"
#include "args/validate.h"
#include "cuda/call.h"
#include "cuda/fused_cam.h"

namespace camfuse::cuda {
namespace {

std::tuple<Tensor, Tensor> layer_cam(const Tensor& activations, std::optional<Tensor> gradients,
                                     std::vector<int64_t> codes, std::optional<Tensor> weights) {
  const std::vector<Rule> rules = checked_rules(codes);
  LayerCamArgs args = layer_cam_args(activations, gradients, rules, weights);
  check_layer_cam(args, {});
  const Call call(activations);
  const Tensor maps = call.allocate({args.R, args.B, args.h, args.w}, map_dtype(args.dtype));
  const Tensor ranges = call.allocate({args.R, args.B, 2}, map_dtype(args.dtype));
  if (args.B == 0) return {maps, ranges};
  args.maps = maps.mutable_data_ptr();
  args.ranges = ranges.mutable_data_ptr();
  const LayerCamPlan plan = plan_layer_cam(args, {});
  const Tensor workspace = call.allocate({plan.workspace_bytes}, ScalarType::Byte);
  launch_layer_cam(plan, workspace.mutable_data_ptr(), call.stream());
  return {maps, ranges};
}

Tensor fused_cam(const Tensor& activations, std::optional<Tensor> gradients, int64_t rule,
                 std::vector<int64_t> size, std::optional<Tensor> weights, bool relu) {
  const std::vector<Rule> rules = checked_rules({rule});
  const LayerCamArgs args = layer_cam_args(activations, gradients, rules, weights);
  check_size(args, size);
  Display display{args.h, args.w, size[0], size[1], relu, nullptr};
  check_layer_cam(args, display);
  const Call call(activations);
  const Tensor result = call.allocate({args.B, size[0], size[1]}, map_dtype(args.dtype));
  if (args.B == 0) return result;
  display.result = result.mutable_data_ptr();
  const LayerCamPlan plan = plan_layer_cam(args, display);
  const Tensor workspace = call.allocate({plan.workspace_bytes}, ScalarType::Byte);
  launch_fused_cam(plan, display, workspace.mutable_data_ptr(), call.stream());
  return result;
}

}  // namespace
}  // namespace camfuse::cuda

STABLE_TORCH_LIBRARY_IMPL(camfuse, CUDA, m) {
  m.impl("layer_cam", TORCH_BOX(&camfuse::cuda::layer_cam));
  m.impl("fused_cam", TORCH_BOX(&camfuse::cuda::fused_cam));
}
