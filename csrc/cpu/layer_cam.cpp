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
// In f32, each rule's partial maps (planar) add at most 1/4 of A, each partial plane sum (rows,
// f64) at most 1/8.
#include "cpu/layer_cam.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/new_tensor.h"
#include "cpu/validate.h"

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

bool is_weighted(Rule rule) { return base_of(rule) == Rule::kWeighted; }

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Dtype input_dtype(const Tensor& activations) {
  switch (activations.scalar_type()) {
    case ScalarType::Double: return Dtype::kF64;
    case ScalarType::Float: return Dtype::kF32;
    case ScalarType::BFloat16: return Dtype::kBF16;
    default: return Dtype::kF16;
  }
}

int64_t element_size(Dtype dtype) {
  return dtype == Dtype::kF64 ? 8 : dtype == Dtype::kF32 ? 4 : 2;
}

LayerView view_of(const Tensor& tensor) {
  const auto strides = tensor.strides();
  return {tensor.const_data_ptr(), strides[0], strides[1], strides[2], strides[3], false};
}

// Whether each plane is contiguous and long enough for whole vectors.
bool is_planar(const LayerCamParams& p, const LayerView& view) {
  return p.h * p.w >= kMinPlane && (p.w == 1 || view.column == 1) && (p.h == 1 || view.row == p.w);
}

// Whether the channels of a position are contiguous, positions evenly apart, and long enough.
bool is_rows(const LayerCamParams& p, const LayerView& view) {
  return p.C >= kMinPlane && view.channel == 1 &&
         (p.h == 1 || p.w == 1 || view.row == p.w * view.column);
}

// Cuts `length` into equal slabs of about kSlabBytes, each a multiple of kGroup but the last.
void set_slabs(LayerCamParams& p, int64_t length, int64_t line, int64_t shortest) {
  const int64_t line_bytes = 2 * line * element_size(p.dtype);
  const int64_t slab = std::max(divide_up(kSlabBytes, line_bytes), shortest);
  p.slab = divide_up(divide_up(length, divide_up(length, slab)), kGroup) * kGroup;
  p.slabs = divide_up(length, p.slab);
}

// Gives a slot to each plane sum that some rule asks for.
void set_sums(LayerCamParams& p) {
  const auto uses = [&](Rule rule) { return p.uses[static_cast<int>(rule)]; };
  const bool alpha = uses(Rule::kGradCamPlusPlus);
  const bool needed[kPlaneSumCount] = {uses(Rule::kGradCam), uses(Rule::kXGradCam) || alpha,
                                       uses(Rule::kXGradCam), alpha};
  p.sum_count = 0;
  for (int sum = 0; sum < kPlaneSumCount; ++sum) {
    p.sum_slot[sum] = needed[sum] ? static_cast<int>(p.sum_count++) : -1;
  }
}

// Runs all tasks of a stage on torch's threads.
void run_stage(LayerCamStage stage, const LayerCamParams& p, int64_t tasks, int64_t task_bytes) {
  const bool packs = stage == LayerCamStage::kPlanarSlabs && (p.a.packed || p.g.packed);
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
  const int64_t acc = map_element_size(p.dtype);
  p.plane = std::max(p.h * p.w, kMinPlane);
  set_slabs(p, p.C, p.plane, kMinSlabChannels);
  p.tile = kTile;
  p.tiles = divide_up(p.h * p.w, p.tile);

  Workspace workspace;
  workspace.add(&p.parts, p.B * p.slabs * p.R * p.plane * acc);
  workspace.add(&p.extremes, p.R * p.B * p.tiles * 2 * acc);
  workspace.allocate();
  run_stage(LayerCamStage::kPlanarSlabs, p, p.B * p.slabs,
            2 * p.slab * p.plane * element_size(p.dtype));
  run_stage(LayerCamStage::kPlanarCombine, p, p.R * p.B * p.tiles,
            p.slabs * std::min(p.plane, p.tile) * acc);
  run_stage(LayerCamStage::kRanges, p, p.R * p.B, p.tiles * 2 * acc);
}

void compute_rows(LayerCamParams& p) {
  const int64_t acc = map_element_size(p.dtype);
  set_slabs(p, p.h * p.w, p.C, kMinSlabPositions);
  p.tile = p.slab;
  p.tiles = p.slabs;
  const bool alpha = p.sum_slot[kSumAlpha] >= 0;
  const bool weighs = p.sum_count > 0 || p.uses[static_cast<int>(Rule::kWeighted)];

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
  LayerCamParams p = layer_cam_params(activations, gradients, chosen, weights);
  const ScalarType dtype = map_dtype(p.dtype);
  Tensor maps = new_tensor<4>({p.R, p.B, p.h, p.w}, dtype);
  Tensor ranges = new_tensor<3>({p.R, p.B, 2}, dtype);
  p.maps = maps.mutable_data_ptr();
  p.ranges = ranges.mutable_data_ptr();
  compute_layer_cam(p);
  return {maps, ranges};
}

}  // namespace

std::vector<Rule> checked_rules(const std::vector<int64_t>& codes) {
  check(!codes.empty(), "rules must name at least one rule, got none");
  std::vector<Rule> rules;
  rules.reserve(codes.size());
  for (int64_t code : codes) {
    check(code >= 0 && code < kRuleCount, "rules must be numbers from 0 to ", kRuleCount - 1,
          ", got ", code);
    rules.push_back(static_cast<Rule>(code));
  }
  return rules;
}

LayerCamParams layer_cam_params(const Tensor& activations, const std::optional<Tensor>& gradients,
                                const std::vector<Rule>& rules,
                                const std::optional<Tensor>& weights) {
  const auto shape = activations.sizes();
  check(shape.size() == 4, "activations must have 4 dimensions [B, C, h, w], got ",
        shape_text(shape));
  check(shape[1] > 0 && shape[2] > 0 && shape[3] > 0,
        "activations must have channels and positions, got ", shape_text(shape));
  check_dtype("activations", activations,
              {ScalarType::Double, ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});

  LayerCamParams p{};
  p.dtype = input_dtype(activations);
  p.B = shape[0], p.C = shape[1], p.h = shape[2], p.w = shape[3];
  p.rules = rules.data();
  p.R = static_cast<int64_t>(rules.size());
  for (Rule rule : rules) p.uses[static_cast<int>(base_of(rule))] = true;
  checked_product("activations", p.B, p.C, p.h, p.w);
  checked_product("maps of all rules", p.R, p.B, p.C, std::max(p.h * p.w, kMinPlane));
  p.a = view_of(activations);

  if (gradients) {
    check_shape("gradients", *gradients, {p.B, p.C, p.h, p.w}, "activations");
    check_like("gradients", *gradients, activations, "activations");
    p.g = view_of(*gradients);
  } else {
    const bool all_weighted = std::all_of(rules.begin(), rules.end(), is_weighted);
    check(all_weighted, "gradients must be given unless every rule is 'weighted', got None");
  }

  const bool weighted = p.uses[static_cast<int>(Rule::kWeighted)];
  check(weights.has_value() == weighted,
        weighted ? "weights must be given for rule 'weighted', got None"
                 : "weights must be None unless rules hold 'weighted', got a tensor");
  if (weights) {
    check_shape("weights", *weights, {p.B, p.C}, "batch and channels");
    check_like("weights", *weights, activations, "activations");
    p.weights = {weights->const_data_ptr(), weights->stride(0), weights->stride(1), 0, 0, false};
  }
  return p;
}

void compute_layer_cam(LayerCamParams p) {
  if (p.B == 0) return;
  // Gradients that no rule reads are not looked at.
  if (std::all_of(p.rules, p.rules + p.R, is_weighted)) p.g = {};
  const bool has_g = p.g.data != nullptr;
  set_sums(p);
  if (is_rows(p, p.a) && (!has_g || is_rows(p, p.g)) &&
      !(is_planar(p, p.a) && (!has_g || is_planar(p, p.g)))) {
    for (LayerView* view : {&p.a, &p.g}) {
      if (p.w == 1) view->column = view->row;  // the distance of neighbouring positions
    }
    compute_rows(p);
  } else {
    p.a.packed = !is_planar(p, p.a);
    p.g.packed = has_g && !is_planar(p, p.g);
    compute_planar(p);
  }
}

}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) { m.impl("layer_cam", TORCH_BOX(&camfuse::layer_cam)); }
