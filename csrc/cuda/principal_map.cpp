// The op principal_map for CUDA tensors: checked arguments, memory, launch.
#include "cuda/principal_map.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "args/layer_cam.h"
#include "args/principal_map.h"
#include "args/validate.h"
#include "cuda/call.h"

namespace camfuse::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor> principal_map(const Tensor& activations,
                                                 std::optional<Tensor> gradients, int64_t terms,
                                                 std::optional<Tensor> weights) {
  PrincipalMapArgs args = principal_map_args(activations, gradients, terms, weights);
  const PrincipalMapPlan sizes = plan_principal_map(args);
  const Call call(activations);
  const ScalarType dtype = map_dtype(args.dtype);
  const Tensor maps = call.allocate({args.B, args.h, args.w}, dtype);
  const Tensor ranges = call.allocate({args.B, 2}, dtype);
  const Tensor scales = call.allocate({args.B}, dtype);
  if (args.B == 0) return {maps, ranges, scales};
  args.maps = maps.mutable_data_ptr();
  args.ranges = ranges.mutable_data_ptr();
  args.scales = scales.mutable_data_ptr();
  const Tensor workspace = call.allocate({sizes.workspace_bytes}, ScalarType::Byte);
  launch_principal_map(plan_principal_map(args), workspace.mutable_data_ptr(), call.stream());
  return {maps, ranges, scales};
}

}  // namespace
}  // namespace camfuse::cuda

STABLE_TORCH_LIBRARY_IMPL(camfuse, CUDA, m) {
  m.impl("principal_map", TORCH_BOX(&camfuse::cuda::principal_map));
}
