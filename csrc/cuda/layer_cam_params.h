// How layer_cam is done on a CUDA device: what is asked for, and the plan of the work. Torch-free.
#pragma once

#include "common/layer_cam_args.h"

namespace camfuse::cuda {

// What a rule adds up over channels.
enum class Term : uint8_t {
  kScaled,            // x * weight
  kScaledMagnitude,   // |x * weight|
  kProduct,           // x * y
  kProductMagnitude,  // |x * y|
  kPositiveProduct,   // max(x * y, 0)
  kPositiveGradient,  // x * max(y, 0)
};

// Where a channel's weight comes from.
enum WeightSlot : uint8_t { kGradCamSlot, kPlusPlusSlot, kXGradCamSlot, kGivenSlot, kSlotCount };

constexpr int kMaxRules = 64;
constexpr int kThreads = 256;
// Blocks that must fit a multiprocessor at once, which bounds their registers: to 128 a thread
// where loads ahead fill them, to 64 (85 in f64) where shared memory holds what is ahead.
constexpr int kResident = 2;
template <class T>
constexpr int kResidentSmall = sizeof(T) == 8 ? 3 : 4;

// How finished maps are shown by fused_cam: normalised, then upsampled.
struct Display {
  int64_t h, w, H, W;
  bool relu;
  void* result;  // Acc [B, H, W]; null: not asked for
};

struct CudaLayerCamParams : LayerCamArgs {
  // C, w, h * w and R once more: arithmetic of 32 bits is what a GPU has.
  int channels, width, plane, rule_count;
  Term terms[kMaxRules];        // of each rule
  WeightSlot slots[kMaxRules];  // of each rule that scales
  int rules_at_once;            // how many have accumulators in shared memory
  bool needs_sum[kPlaneSumCount];
  bool weighs;   // whether some rule scales
  bool reads_g;  // whether the terms or the sums do
  bool maps_read_g;

  // A map is cut into `tiles` of `tile` positions; the channels of a tile into `slabs` of `slab`.
  // Neither depends on the batch nor on the rules, so that no bit of a map does where A and G are
  // laid out alike.
  int tile, tiles, slab, slabs;
  int staged;               // small layers: channels in shared memory at once
  int lanes;                // rows: threads that share a position of a map, a power of two
  int row_slab, row_slabs;  // rows: positions that one block sums, and how many cover a plane

  // Workspace
  unsigned* tile_counters;    // [B, tiles], or [B, chunks of channels] of rows, zeroed
  unsigned* sample_counters;  // [B], zeroed
  void* parts;                // Acc [B, slabs, R, h * w], if there are several slabs
  void* extremes;             // Acc [R, B, tiles, 2], if there are several tiles
  void* channel_weights;      // Acc [3, B, C]
  void* row_sums;             // Sum<Acc> [B, row_slabs, 3, C]

  Display display;  // what the last block of a sample finishes
};

enum class Path { kSmall, kPlanes, kRows };

struct LayerCamPlan {
  CudaLayerCamParams params;  // its workspace is not there yet
  Path path;
  bool wide;  // loads of 16 bytes
  int64_t workspace_bytes;
};

}  // namespace camfuse::cuda
