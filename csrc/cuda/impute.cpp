// The op impute for CUDA tensors: checked arguments, memory, launch.
#include "cuda/impute.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "args/impute.h"
#include "args/layer_cam.h"
#include "args/validate.h"
#include "cuda/call.h"

namespace camfuse::cuda {
namespace {

std::tuple<Tensor, Tensor> impute(const Tensor& image, const Tensor& masks, double tolerance) {
  ImputeArgs args = impute_args(image, masks, tolerance);
  const Call call(image);
  const Tensor images = call.allocate({args.N, args.C, args.H, args.W}, map_dtype(args.dtype));
  const Tensor residuals = call.allocate({args.N}, ScalarType::Double);
  if (args.N == 0) return {images, residuals};
  args.images = images.mutable_data_ptr();
  args.residuals = static_cast<double*>(residuals.mutable_data_ptr());
  const ImputePlan plan = plan_impute(args);
  const Tensor workspace = call.allocate({plan.workspace_bytes}, ScalarType::Byte);
  launch_impute(plan, workspace.mutable_data_ptr(), call.stream());
  return {images, residuals};
}

}  // namespace
}  // namespace camfuse::cuda

STABLE_TORCH_LIBRARY_IMPL(camfuse, CUDA, m) { m.impl("impute", TORCH_BOX(&camfuse::cuda::impute)); }
