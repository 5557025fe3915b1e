// impute: arrays of the image and the masks with their strides.
#include "cuda/impute.h"
#include "interface.h"
#include "workspace.h"

namespace {

EMULATED_OP(impute, args) {
  camfuse::ImputeArgs p{};
  p.dtype = static_cast<camfuse::Dtype>(args.integer("dtype"));
  const auto shape = args.shape("image"), strides = args.strides("image");
  const auto mask_strides = args.strides("masks");
  p.N = args.shape("masks")[0], p.C = shape[0], p.H = shape[1], p.W = shape[2];
  p.image = {args.array<void>("image"), 0, strides[0], strides[1], strides[2]};
  p.masks = {args.array<void>("masks"), mask_strides[0], 0, mask_strides[1], mask_strides[2]};
  p.tolerance = args.real("tolerance");
  p.images = args.array<void>("images");
  p.residuals = args.array<double>("residuals");
  const auto plan = camfuse::cuda::plan_impute(p);
  const emulated::Workspace workspace(plan.workspace_bytes);
  camfuse::cuda::launch_impute(plan, workspace.get(), nullptr);
}

}  // namespace
