// layer_cam on a CUDA device: the plan of the work, and its launches.
//
// Note: [Bytes moved, CUDA]
// Times that A and G are read. Small layers lie in shared memory between their sums and their maps.
// Of larger ones a plane is summed in the first launch and added to the maps in the second; what
// both read comes from the L2 cache the second time, where the layer fits in it.
//
//                                       small    planes and rows
//   gradcam                             A + G    A + G
//   gradcam++, xgradcam                 A + G    2 A + G
//   hirescam, elementwise, layercam     A + G    A + G
//   weighted                            A        A
//   all of them                         A + G    2 A + 2 G, rows 2 A + 3 G
//
// So much for each turn: rules take turns where a device's shared memory does not hold them all.
// Partial maps of a slab of channels are written and read once for each rule: 1/16 of A and G.
// Partial sums of rows: less than 1/100.
#include <algorithm>

#include "common/divide.h"
#include "cuda/fused_cam.h"
#include "cuda/launch.h"
#include "cuda/layer_cam.h"
#include "cuda/layer_cam_planes.cuh"
#include "cuda/layer_cam_rows.cuh"
#include "cuda/layer_cam_small.cuh"
#include "cuda/workspace.h"

namespace camfuse::cuda {
namespace {

constexpr int64_t kSmallPlane = 1024;      // positions; larger planes leave too few blocks
constexpr int64_t kSlabBytes = 64;         // of one position's channels: 16 in f32
constexpr int64_t kStageBytes = 32 << 10;  // of A and G together, in shared memory
constexpr int64_t kOtherBytes = 2 << 10;   // what else a kernel has in shared memory, at most
constexpr int kRowSlab = 512;              // positions
constexpr int kTurns = 4;                  // positions of a map that a thread takes part in

Term term_of(Rule rule) {
  switch (rule) {
    case Rule::kHiResCam: return Term::kProduct;
    case Rule::kHiResCamMagnitude: return Term::kProductMagnitude;
    case Rule::kElementwise: return Term::kPositiveProduct;
    case Rule::kLayerCam: return Term::kPositiveGradient;
    default: return rule == base_of(rule) ? Term::kScaled : Term::kScaledMagnitude;
  }
}

WeightSlot slot_of(Rule rule) {
  switch (base_of(rule)) {
    case Rule::kGradCam: return kGradCamSlot;
    case Rule::kGradCamPlusPlus: return kPlusPlusSlot;
    case Rule::kXGradCam: return kXGradCamSlot;
    default: return kGivenSlot;
  }
}

bool is_planar(const LayerCamArgs& args, const LayerView& view) {
  return (args.w == 1 || view.column == 1) && (args.h == 1 || view.row == args.w);
}

// Whether channels lie together and positions evenly apart.
bool is_rows(const LayerCamArgs& args, const LayerView& view) {
  return view.channel == 1 && (args.h == 1 || args.w == 1 || view.row == args.w * view.column);
}

// Whether every run of `pack` elements begins at a multiple of 16 bytes, for lines of `length`
// elements that begin `distance` apart.
bool is_aligned(const LayerCamArgs& args, const LayerView& view, int64_t length, int64_t distance) {
  const int64_t pack = 16 / element_size(args.dtype);
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && length % pack == 0 &&
         distance % pack == 0 && view.batch % pack == 0;
}

// A power of two, at most a warp, that covers `packs`.
int lanes_for(int64_t packs) {
  int lanes = 1;
  while (lanes < kWarp && lanes < packs) lanes *= 2;
  return lanes;
}

// How many blocks cover `length`.
int blocks_for(int64_t length, int64_t block) { return static_cast<int>(divide_up(length, block)); }

// How many rules have room for their sums, `each` bytes, beside `other` bytes. Devices with much
// shared memory hold all rules at once, and two blocks; on others rules take turns.
int rules_within(int64_t each, int64_t other, int64_t rules) {
  const int64_t block = std::max(current_device().shared_bytes / 2, kUsualSharedBytes);
  return static_cast<int>(std::clamp<int64_t>((block - other) / each, 1, rules));
}

void plan_slabs(CudaLayerCamParams& p) {
  p.slab = static_cast<int>(kSlabBytes / element_size(p.dtype));
  p.slabs = blocks_for(p.C, p.slab);
}

void plan_small(CudaLayerCamParams& p) {
  const int64_t pack = 16 / element_size(p.dtype);
  plan_slabs(p);
  p.tile = p.plane, p.tiles = 1;
  // Whole packs of channels, for layers whose channels lie together.
  const int64_t fit = kStageBytes / (2 * p.plane * element_size(p.dtype)) / pack * pack;
  p.staged = static_cast<int>(std::clamp<int64_t>(fit, pack, p.slab));
  p.rules_at_once = rules_within(small_groups(p.plane) * p.plane * acc_size(p.dtype),
                                 kStageBytes + kOtherBytes, p.R);
}

void plan_planes(CudaLayerCamParams& p, bool wide) {
  const int64_t pack = wide ? 16 / element_size(p.dtype) : 1;
  plan_slabs(p);
  p.tile = static_cast<int>(kThreads * pack);
  p.tiles = blocks_for(p.plane, p.tile);
  p.rules_at_once = rules_within(p.tile * acc_size(p.dtype), kOtherBytes, p.R);
}

void plan_rows(CudaLayerCamParams& p, bool wide) {
  const int64_t pack = wide ? 16 / element_size(p.dtype) : 1;
  for (LayerView* view : {&p.a, &p.g}) {
    if (p.w == 1) view->column = view->row;  // the distance of neighbouring positions
  }
  p.slab = p.channels, p.slabs = 1;
  p.lanes = lanes_for(divide_up(p.C, pack));
  p.tile = kTurns * kThreads / p.lanes;
  p.tiles = blocks_for(p.plane, p.tile);
  p.row_slab = kRowSlab;
  p.row_slabs = blocks_for(p.plane, p.row_slab);
  p.rules_at_once = rules_within(3 * kThreads * acc_size(p.dtype), kOtherBytes, p.R);
}

// Positions and channels are counted in 32 bits, with room for the step past the end.
void check_fits(const char* name, int64_t count) {
  if (count <= 1 << 30) return;
  throw std::invalid_argument(std::string(name) +
                              ": sides of more than 2^30 do not fit a CUDA kernel, got " +
                              std::to_string(count));
}

bool has_sums(const CudaLayerCamParams& p) { return p.needs_sum[kSumG] || p.needs_sum[kSumA]; }

// Sets the arrays of the workspace in `p`; returns its size, and how much of it must be zero.
Workspace place(CudaLayerCamParams& p, Path path, void* memory, int64_t* zeroed) {
  const int64_t acc = acc_size(p.dtype), sum = 8;  // Sum<float> is two, Sum<double> one
  const int64_t chunks = divide_up(p.C, 64 / element_size(p.dtype));
  const bool rows = path == Path::kRows, sums = has_sums(p);
  Workspace workspace(memory);
  workspace.add(&p.tile_counters, 4 * p.B * (rows ? (sums ? chunks : 0) : p.tiles));
  workspace.add(&p.sample_counters, 4 * p.B);
  *zeroed = workspace.size();
  workspace.add(&p.parts, p.slabs > 1 ? p.B * p.slabs * p.R * p.h * p.w * acc : 0);
  workspace.add(&p.extremes, p.tiles > 1 ? p.R * p.B * p.tiles * 2 * acc : 0);
  workspace.add(&p.channel_weights, sums && path != Path::kSmall ? 3 * p.B * p.C * acc : 0);
  workspace.add(&p.row_sums, rows && sums ? p.B * p.row_slabs * kSumAlpha * p.C * sum : 0);
  if (p.maps == nullptr) {
    workspace.add(&p.maps, p.R * p.B * p.h * p.w * acc);
    workspace.add(&p.ranges, p.R * p.B * 2 * acc);
  }
  return workspace;
}

template <class T>
void launch_small(const CudaLayerCamParams& p, cudaStream_t stream) {
  const SmallLayout<T> layout(p.plane, p.staged, p.rules_at_once, small_groups(p.plane));
  launch("map_small", map_small<T>, p.B * p.slabs, kThreads, layout.end, stream, p);
}

template <class T, int V>
void launch_planes(const CudaLayerCamParams& p, cudaStream_t stream) {
  if (has_sums(p)) {
    launch("sum_planes", sum_planes<T, V>, p.B * p.C, kThreads, sizeof(SumPlanesMemory<T>), stream,
           p);
  }
  const int64_t shared = p.rules_at_once * kThreads * sizeof(Pack<Acc<T>, V>);
  launch("map_planes", map_planes<T, V>, p.B * p.tiles * p.slabs, kThreads,
         shared + sizeof(MapPlanesMemory<T>), stream, p);
}

template <class T, int V>
void launch_rows(const CudaLayerCamParams& p, cudaStream_t stream) {
  if (has_sums(p)) {
    launch("sum_rows", sum_rows<T, V>, p.B * divide_up(p.C, kChunk<T>) * p.row_slabs, kThreads,
           sizeof(SumRowsMemory<T>), stream, p);
  }
  const int64_t shared = p.rules_at_once * kThreads * 3 * sizeof(Acc<T>);
  launch("map_rows", map_rows<T, V>, p.B * p.tiles, kThreads, shared + sizeof(MapRowsMemory<T>),
         stream, p);
}

template <class T>
void launch_path(const LayerCamPlan& plan, const CudaLayerCamParams& p, cudaStream_t stream) {
  switch (plan.path) {
    case Path::kSmall: return launch_small<T>(p, stream);
    case Path::kPlanes:
      return plan.wide ? launch_planes<T, kWide<T>>(p, stream) : launch_planes<T, 1>(p, stream);
    case Path::kRows:
      return plan.wide ? launch_rows<T, kWide<T>>(p, stream) : launch_rows<T, 1>(p, stream);
  }
}

}  // namespace

void check_layer_cam(const LayerCamArgs& args, const Display& display) {
  if (args.R > kMaxRules) {
    throw std::invalid_argument("rules must be at most " + std::to_string(kMaxRules) +
                                " on a CUDA device, got " + std::to_string(args.R));
  }
  check_fits("activations", args.C);
  check_fits("activations", args.h * args.w);
  if (display.H > 0) check_display(display);
}

LayerCamPlan plan_layer_cam(const LayerCamArgs& args, const Display& display) {
  check_layer_cam(args, display);
  LayerCamPlan plan{};
  CudaLayerCamParams& p = plan.params;
  static_cast<LayerCamArgs&>(p) = args;
  p.channels = static_cast<int>(p.C), p.width = static_cast<int>(p.w);
  p.plane = static_cast<int>(p.h * p.w), p.rule_count = static_cast<int>(p.R);
  for (int64_t r = 0; r < p.R; ++r) {
    p.terms[r] = term_of(p.rules[r]);
    p.slots[r] = slot_of(p.rules[r]);
    p.weighs = p.weighs || is_scaled(p.terms[r]);
    p.maps_read_g = p.maps_read_g || !is_scaled(p.terms[r]);
  }
  p.rules = nullptr;  // it lies in the host's memory
  for (int sum = 0; sum < kPlaneSumCount; ++sum) p.needs_sum[sum] = needs(p, PlaneSum(sum));
  p.reads_g = p.g.data != nullptr;

  const bool planar = is_planar(p, p.a) && (!p.reads_g || is_planar(p, p.g));
  const bool rows = is_rows(p, p.a) && (!p.reads_g || is_rows(p, p.g));
  const auto aligned = [&](int64_t length, auto distance) {
    return is_aligned(p, p.a, length, distance(p.a)) &&
           (!p.reads_g || is_aligned(p, p.g, length, distance(p.g)));
  };
  if (p.h * p.w <= kSmallPlane) {
    plan.path = Path::kSmall;
    plan_small(p);
  } else if (rows && !planar) {
    plan.path = Path::kRows;
    plan.wide =
        aligned(p.C, [&](const LayerView& view) { return p.w == 1 ? view.row : view.column; });
    plan_rows(p, plan.wide);
  } else {
    plan.path = Path::kPlanes;
    plan.wide = planar && aligned(p.h * p.w, [](const LayerView& view) { return view.channel; });
    plan_planes(p, plan.wide);
  }
  // A second launch shows maps better than the last block of each sample; a third is not allowed.
  if (plan.path != Path::kSmall && has_sums(p)) p.display = display;
  int64_t zeroed;
  plan.workspace_bytes = place(p, plan.path, nullptr, &zeroed).size();
  return plan;
}

CudaLayerCamParams launch_layer_cam(const LayerCamPlan& plan, void* workspace, void* stream) {
  CudaLayerCamParams p = plan.params;
  int64_t zeroed;
  place(p, plan.path, workspace, &zeroed);
  const auto on = static_cast<cudaStream_t>(stream);
  check_cuda(cudaMemsetAsync(workspace, 0, static_cast<size_t>(zeroed), on), "cudaMemsetAsync");
  switch (p.dtype) {
    case Dtype::kF64: launch_path<double>(plan, p, on); break;
    case Dtype::kF32: launch_path<float>(plan, p, on); break;
    case Dtype::kBF16: launch_path<BFloat16>(plan, p, on); break;
    case Dtype::kF16: launch_path<Half>(plan, p, on); break;
  }
  return p;
}

}  // namespace camfuse::cuda
