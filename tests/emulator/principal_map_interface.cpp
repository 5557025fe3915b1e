// principal_map: arrays of A, G and weights with their strides.
#include "cuda/principal_map.h"
#include "interface.h"
#include "workspace.h"

namespace {

using camfuse::Dtype;
using camfuse::LayerView;
using camfuse::PrincipalMapArgs;
using camfuse::Terms;

LayerView view_of(const emulated::Arguments& args, const char* name) {
  const void* const data = args.array<void>(name);
  if (data == nullptr) return {};
  const auto strides = args.strides(name);
  if (strides.size() == 2) return {data, strides[0], strides[1], 0, 0};
  return {data, strides[0], strides[1], strides[2], strides[3]};
}

EMULATED_OP(principal_map, args) {
  PrincipalMapArgs layer{};
  layer.dtype = static_cast<Dtype>(args.integer("dtype"));
  layer.terms = static_cast<Terms>(args.integer("terms"));
  const auto shape = args.shape("activations");
  layer.B = shape[0], layer.C = shape[1], layer.h = shape[2], layer.w = shape[3];
  layer.a = view_of(args, "activations");
  layer.g = view_of(args, "gradients");
  layer.weights = view_of(args, "weights");
  layer.maps = args.array<void>("maps");
  layer.ranges = args.array<void>("ranges");
  layer.scales = args.array<void>("scales");
  const auto plan = camfuse::cuda::plan_principal_map(layer);
  const emulated::Workspace workspace(plan.workspace_bytes);
  camfuse::cuda::launch_principal_map(plan, workspace.get(), nullptr);
}

}  // namespace
