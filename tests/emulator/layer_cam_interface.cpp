// layer_cam and fused_cam: arrays of A, G and weights with their strides, rules as a host array.
#include "cuda/fused_cam.h"
#include "cuda/layer_cam.h"
#include "interface.h"
#include "workspace.h"

namespace {

using camfuse::Dtype;
using camfuse::LayerCamArgs;
using camfuse::LayerView;
using camfuse::Rule;

LayerView view_of(const emulated::Arguments& args, const char* name) {
  const void* const data = args.array<void>(name);
  if (data == nullptr) return {};
  const auto strides = args.strides(name);
  if (strides.size() == 2) return {data, strides[0], strides[1], 0, 0};
  return {data, strides[0], strides[1], strides[2], strides[3]};
}

LayerCamArgs layer_of(const emulated::Arguments& args) {
  LayerCamArgs layer{};
  layer.dtype = static_cast<Dtype>(args.integer("dtype"));
  const auto shape = args.shape("activations");
  layer.B = shape[0], layer.C = shape[1], layer.h = shape[2], layer.w = shape[3];
  layer.a = view_of(args, "activations");
  layer.g = view_of(args, "gradients");
  layer.weights = view_of(args, "weights");
  layer.rules = args.array<const Rule>("rules");
  layer.R = args.shape("rules")[0];
  for (int64_t r = 0; r < layer.R; ++r)
    layer.uses[static_cast<int>(base_of(layer.rules[r]))] = true;
  return layer;
}

EMULATED_OP(layer_cam, args) {
  LayerCamArgs layer = layer_of(args);
  layer.maps = args.array<void>("maps");
  layer.ranges = args.array<void>("ranges");
  const auto plan = camfuse::cuda::plan_layer_cam(layer, {});
  const emulated::Workspace workspace(plan.workspace_bytes);
  camfuse::cuda::launch_layer_cam(plan, workspace.get(), nullptr);
}

EMULATED_OP(fused_cam, args) {
  const LayerCamArgs layer = layer_of(args);
  const auto size = args.shape("result");
  const camfuse::cuda::Display display{layer.h, layer.w,           size[1],
                                       size[2], args.flag("relu"), args.array<void>("result")};
  const auto plan = camfuse::cuda::plan_layer_cam(layer, display);
  const emulated::Workspace workspace(plan.workspace_bytes);
  camfuse::cuda::launch_fused_cam(plan, display, workspace.get(), nullptr);
}

}  // namespace
