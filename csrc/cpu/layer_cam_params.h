// How layer_cam is done on the CPU: what is asked for, and the plan of the work. Torch-free.
#pragma once

#include "common/layer_cam_args.h"

namespace camfuse {

struct LayerCamParams : LayerCamArgs {
  bool packs_a, packs_g;  // its planes are copied, a few at a time, before they are reduced

  // A sample is cut into `slabs` slabs: of channels where planes are contiguous, of positions where
  // the channels of a position are. Their size never depends on the batch or the thread count.
  int64_t slab, slabs;
  int64_t plane;  // positions of a plane in scratch: h * w, at least kMinPlane

  int sum_slot[kPlaneSumCount];  // a sum's place among those needed, in order; -1: not needed
  int64_t sum_count;

  void* parts;            // Acc    [B, slabs, R, plane]: maps of each slab of channels
  int64_t* joined;        // [B]: how many parts, from the first on, the first is the sum of
  double* sums;           // double [B, slabs, sum_count, C]: sums over each slab of positions
  void* channel_weights;  // Acc    [B, R, C]
  void* extremes;         // Acc    [R, B, tiles, 2]: minimum and maximum of each tile of a map
  int64_t tile, tiles;    // positions of a tile, and how many make a map
};

// The kernels read whole vectors: shorter planes are padded, shorter rows of channels are packed.
constexpr int64_t kMinPlane = 16;
// Planes (or rows of channels) that one sweep reduces together.
constexpr int kGroup = 4;
// Channels whose plane sums one task of kRowTotals completes.
constexpr int64_t kChannelChunk = 1024;

// The steps of layer_cam. Tasks of a stage are independent; stages follow one another.
enum class LayerCamStage {
  // Planes contiguous (NCHW, or packed): A and G are read once.
  kPlanarSlabs,    // task (b, slab): plane sums, channel weights, `parts` and `joined`
  kPlanarCombine,  // task (r, b, tile): `maps` and `extremes` from `parts`
  // Channels of a position contiguous (channels_last).
  kRowSums,         // task (b, slab): `sums`
  kRowTotals,       // task (b, chunk): totals over slabs, `channel_weights`
  kRowAlphaSums,    // task (b, slab): gradcam++'s sum, which needs the total of A
  kRowAlphaTotals,  // task (b, chunk): its total and weights
  kRowMaps,         // task (b, slab): `maps` and `extremes`
  // Either.
  kRanges,  // task (r, b): `ranges` from `extremes`
};

}  // namespace camfuse
