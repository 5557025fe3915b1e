// The plan of layer_cam, and what its launchers ask for, as numbers.
#include "cuda/launch.h"
#include "cuda/layer_cam.h"
#include "cuda/layer_cam_planes.cuh"
#include "cuda/layer_cam_rows.cuh"
#include "cuda/layer_cam_small.cuh"
#include "interface.h"

namespace {

using namespace camfuse;
using namespace camfuse::cuda;

// Shared memory of the kernels that sum and that map, as the launchers ask for it.
template <class T>
void shared_bytes(const LayerCamPlan& plan, int64_t* sum, int64_t* map) {
  const CudaLayerCamParams& p = plan.params;
  const int64_t acc = sizeof(Acc<T>);
  switch (plan.path) {
    case Path::kSmall:
      *sum = 0;
      *map = SmallLayout<T>(p.plane, p.staged, p.rules_at_once, small_groups(p.plane)).end;
      return;
    case Path::kPlanes:
      *sum = sizeof(SumPlanesMemory<T>);
      *map = p.rules_at_once * p.tile * acc + int64_t{sizeof(MapPlanesMemory<T>)};
      return;
    case Path::kRows:
      *sum = sizeof(SumRowsMemory<T>);
      *map = p.rules_at_once * kThreads * 3 * acc + int64_t{sizeof(MapRowsMemory<T>)};
  }
}

struct Numbers {
  int64_t at[9];
};

// What Python is given back lies on the device.
__global__ void store(Numbers numbers, int64_t* to) { to[threadIdx.x] = numbers.at[threadIdx.x]; }

EMULATED_OP(layer_cam_plan, args) {
  LayerCamArgs layer{};
  layer.dtype = static_cast<Dtype>(args.integer("dtype"));
  layer.B = args.integer("B"), layer.C = args.integer("C");
  layer.h = args.integer("h"), layer.w = args.integer("w");
  const int64_t plane = layer.h * layer.w;
  // A null pointer would mean that gradients were not given.
  const void* const aligned = reinterpret_cast<const void*>(uintptr_t{256});
  layer.a = args.flag("rows") ? LayerView{aligned, layer.C * plane, 1, layer.w * layer.C, layer.C}
                              : LayerView{aligned, layer.C * plane, plane, layer.w, 1};
  layer.g = layer.a;
  const Rule rule = args.flag("sums") ? Rule::kGradCam : Rule::kLayerCam;
  const std::vector<Rule> rules(static_cast<std::size_t>(args.integer("rules")), rule);
  layer.rules = rules.data();
  layer.R = args.integer("rules");
  layer.uses[static_cast<int>(rule)] = true;

  const LayerCamPlan plan = plan_layer_cam(layer, {});
  int64_t sum = 0, map = 0;
  switch (layer.dtype) {
    case Dtype::kF64: shared_bytes<double>(plan, &sum, &map); break;
    case Dtype::kF32: shared_bytes<float>(plan, &sum, &map); break;
    case Dtype::kBF16: shared_bytes<BFloat16>(plan, &sum, &map); break;
    case Dtype::kF16: shared_bytes<Half>(plan, &sum, &map); break;
  }
  const CudaLayerCamParams& p = plan.params;
  const Numbers numbers{{static_cast<int64_t>(plan.path), plan.wide, p.tile, p.tiles, p.slab,
                         p.slabs, p.rules_at_once, sum, map}};
  launch("store", store, 1, 9, 0, nullptr, numbers, args.array<int64_t>("plan"));
}

}  // namespace
