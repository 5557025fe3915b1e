// layer_cam on the CPU: validation, the plan of the work, dispatch, registration.
//
// Note: [Bytes moved]
// Times that A and G come from memory. Planar: a group of planes stays in the cache between its
// sums and its maps. Rows: a stage must end before the next begins, so what two stages read comes
// twice once a layer exceeds the cache. Several rules share every read.
//
//                                       planar   rows
//   gradcam                             A + G    A + G
//   gradcam++, xgradcam                 A + G    2 A + G
//   hirescam, elementwise, layercam     A + G    A + G
//   weighted                            A        A
//   all of them                         A + G    2 A + 3 G
//
// In f32, each rule's partial maps (planar) add at most 1/4 of A, but nearly nothing where a thread
// has all slabs of a sample; each partial plane sum (rows, f64) at most 1/8.
#include "cpu/layer_cam.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "args/layer_cam.h"
#include "args/new_tensor.h"
#include "args/validate.h"
#include "common/divide.h"
#include "cpu/isa.h"
#include "cpu/layer_cam_params.h"
#include "cpu/layouts.h"
#include "cpu/memory.h"

namespace camfuse {

#define CAMFUSE_DECLARE(ISA)                                                         \
  namespace ISA {                                                                    \
  void run_layer_cam(LayerCamStage, const LayerCamParams&, int64_t, int64_t, void*); \
  }
CAMFUSE_DECLARE(baseline)
CAMFUSE_DECLARE(v3)
CAMFUSE_DECLARE(v4)
#undef CAMFUSE_DECLARE

namespace {

constexpr int64_t kSlabBytes = 256 << 10;  // of A and G together: they stay in the L2 cache
constexpr int64_t kGrainBytes = 64 << 10;  // less than this is not worth a second thread
constexpr int64_t kTile = 4096;            // positions of a map that one task completes
constexpr int64_t kMinSlabChannels = 8;    // keeps partial maps small against A and G
constexpr int64_t kMinSlabPositions = 32;  // the same for partial plane sums

// Cuts `length` into equal slabs of about kSlabBytes, each a multiple of kGroup but the last.
void set_slabs(LayerCamParams& p, int64_t length, int64_t line, int64_t shortest) {
  const int64_t line_bytes = 2 * line * element_size(p.dtype);
  const int64_t slab = std::max(divide_up(kSlabBytes, line_bytes), shortest);
  p.slab = divide_up(divide_up(length, divide_up(length, slab)), kGroup) * kGroup;
  p.slabs = divide_up(length, p.slab);
}

// Gives a slot to each plane sum that some rule asks for.
void set_sums(LayerCamParams& p) {
  p.sum_count = 0;
  for (int sum = 0; sum < kPlaneSumCount; ++sum) {
    p.sum_slot[sum] = needs(p, PlaneSum(sum)) ? static_cast<int>(p.sum_count++) : -1;
  }
}

// Runs all tasks of a stage on torch's threads.
void run_stage(LayerCamStage stage, const LayerCamParams& p, int64_t tasks, int64_t task_bytes) {
  const bool packs = stage == LayerCamStage::kPlanarSlabs && (p.packs_a || p.packs_g);
  const auto run = [&](int64_t begin, int64_t end) {
    AlignedBytes scratch;
    if (packs) scratch = allocate(2 * kGroup * p.plane * element_size(p.dtype));
    CAMFUSE_DISPATCH_ISA(run_layer_cam, stage, p, begin, end, scratch.get());
  };
  const int64_t grain = divide_up(kGrainBytes, std::max<int64_t>(task_bytes, 1));
  if (tasks <= grain) {
    run(0, tasks);
  } else {
    torch::stable::parallel_for(0, tasks, grain, run);
  }
}

void compute_planar(LayerCamParams& p) {
  const int64_t acc = acc_size(p.dtype);
  p.plane = std::max(p.h * p.w, kMinPlane);
  set_slabs(p, p.C, p.plane, kMinSlabChannels);
  p.tile = kTile;
  p.tiles = divide_up(p.h * p.w, p.tile);

  Workspace workspace;
  workspace.add(&p.parts, p.B * p.slabs * p.R * p.plane * acc);
  workspace.add(&p.joined, p.B * static_cast<int64_t>(sizeof(int64_t)));
  workspace.add(&p.extremes, p.R * p.B * p.tiles * 2 * acc);
  workspace.allocate();
  run_stage(LayerCamStage::kPlanarSlabs, p, p.B * p.slabs,
            2 * p.slab * p.plane * element_size(p.dtype));
  run_stage(LayerCamStage::kPlanarCombine, p, p.R * p.B * p.tiles,
            p.slabs * std::min(p.plane, p.tile) * acc);
  run_stage(LayerCamStage::kRanges, p, p.R * p.B, p.tiles * 2 * acc);
}

void compute_rows(LayerCamParams& p) {
  const int64_t acc = acc_size(p.dtype);
  set_slabs(p, p.h * p.w, p.C, kMinSlabPositions);
  p.tile = p.slab;
  p.tiles = p.slabs;
  const bool alpha = p.sum_slot[kSumAlpha] >= 0;
  const bool weighs = p.sum_count > 0 || uses(p, Rule::kWeighted);

  Workspace workspace;
  workspace.add(&p.sums, p.B * p.slabs * p.sum_count * p.C * static_cast<int64_t>(sizeof(double)));
  workspace.add(&p.channel_weights, weighs ? p.B * p.R * p.C * acc : 0);
  workspace.add(&p.extremes, p.R * p.B * p.tiles * 2 * acc);
  workspace.allocate();
  const int64_t slab_bytes = p.slab * p.C * element_size(p.dtype);
  const int64_t chunks = divide_up(p.C, kChannelChunk);
  const int64_t chunk_bytes =
      std::min(p.C, kChannelChunk) * p.slabs * static_cast<int64_t>(sizeof(double));
  if (p.sum_count > 0) run_stage(LayerCamStage::kRowSums, p, p.B * p.slabs, slab_bytes);
  if (weighs) run_stage(LayerCamStage::kRowTotals, p, p.B * chunks, chunk_bytes);
  if (alpha) {
    run_stage(LayerCamStage::kRowAlphaSums, p, p.B * p.slabs, slab_bytes);
    run_stage(LayerCamStage::kRowAlphaTotals, p, p.B * chunks, chunk_bytes);
  }
  run_stage(LayerCamStage::kRowMaps, p, p.B * p.slabs, slab_bytes);
  run_stage(LayerCamStage::kRanges, p, p.R * p.B, p.tiles * 2 * acc);
}

std::tuple<Tensor, Tensor> layer_cam(Tensor activations, std::optional<Tensor> gradients,
                                     std::vector<int64_t> rules, std::optional<Tensor> weights) {
  const std::vector<Rule> chosen = checked_rules(rules);
  LayerCamArgs p = layer_cam_args(activations, gradients, chosen, weights);
  const ScalarType dtype = map_dtype(p.dtype);
  Tensor maps = new_tensor<4>({p.R, p.B, p.h, p.w}, dtype);
  Tensor ranges = new_tensor<3>({p.R, p.B, 2}, dtype);
  p.maps = maps.mutable_data_ptr();
  p.ranges = ranges.mutable_data_ptr();
  compute_layer_cam(p);
  return {maps, ranges};
}

}  // namespace

void compute_layer_cam(const LayerCamArgs& args) {
  if (args.B == 0) return;
  LayerCamParams p{};
  static_cast<LayerCamArgs&>(p) = args;
  const bool has_g = p.g.data != nullptr;
  set_sums(p);
  if (is_rows(p, p.a) && (!has_g || is_rows(p, p.g)) &&
      !(is_planar(p, p.a) && (!has_g || is_planar(p, p.g)))) {
    for (LayerView* view : {&p.a, &p.g}) {
      if (p.w == 1) view->column = view->row;  // the distance of neighbouring positions
    }
    compute_rows(p);
  } else {
    p.packs_a = !is_planar(p, p.a);
    p.packs_g = has_g && !is_planar(p, p.g);
    compute_planar(p);
  }
}

}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) { m.impl("layer_cam", TORCH_BOX(&camfuse::layer_cam)); }
