// The last steps of every map: slabs added up, ranges found, and for fused_cam the finished
// picture. Each step is done by whichever block comes last, in an order that does not depend on
// which it is. Torch-free.
#pragma once

#include "cuda/fused_cam_kernel.cuh"
#include "cuda/layer_cam_params.h"
#include "cuda/sums.cuh"

namespace camfuse::cuda {

// The extremes over a block, in all threads. `scratch` holds one for each warp.
template <class A>
__device__ __forceinline__ Extremes<A> block_extremes(Extremes<A> found, Extremes<A>* scratch) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) found.add(found.from_lane(distance));
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = found;
  __syncthreads();
  found = scratch[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) found.add(scratch[warp]);
  __syncthreads();  // so that `scratch` may be used again
  return found;
}

// Records the range of sample b, map r, and what is to be shown of it. The block has met since the
// map was complete: to find its range.
template <class A>
__device__ __forceinline__ void finish_sample(const CudaLayerCamParams& p, int64_t b, int r,
                                              Extremes<A> range) {
  if (threadIdx.x == 0) {
    A* const out = static_cast<A*>(p.ranges) + (r * p.B + b) * 2;
    out[0] = range.low;
    out[1] = range.high;
  }
  if (p.display.result != nullptr) {
    show(p.display, static_cast<const A*>(p.maps) + b * p.plane, b, range, threadIdx.x, kThreads);
  }
}

template <class A>
__device__ __forceinline__ A* tile_extremes(const CudaLayerCamParams& p, int r, int64_t b,
                                            int tile) {
  return static_cast<A*>(p.extremes) + ((r * p.B + b) * p.tiles + tile) * 2;
}

// Of map r of a tile; `found` is the same in all threads.
template <class A>
__device__ __forceinline__ void record_extremes(const CudaLayerCamParams& p, int64_t b, int r,
                                                int tile, Extremes<A> found) {
  if (p.tiles == 1) {
    finish_sample(p, b, r, found);
  } else if (threadIdx.x == 0) {
    A* const out = tile_extremes<A>(p, r, b, tile);
    out[0] = found.low;
    out[1] = found.high;
  }
}

// After the extremes of all maps of a tile: the last block of a sample joins those of its tiles.
template <class A>
__device__ __forceinline__ void finish_if_last_tile(const CudaLayerCamParams& p, int64_t b,
                                                    unsigned* flag, Extremes<A>* scratch) {
  if (p.tiles == 1) return;
  if (!arrives_last(p.sample_counters + b, static_cast<unsigned>(p.tiles), flag)) return;
  for (int r = 0; r < p.rule_count; ++r) {
    const A* const all = tile_extremes<A>(p, r, b, 0);
    Extremes<A> range = Extremes<A>::none();
    for (int tile = threadIdx.x; tile < p.tiles; tile += kThreads)
      range.add({load_fresh(all + 2 * tile), load_fresh(all + 2 * tile + 1)});
    finish_sample(p, b, r, block_extremes(range, scratch));
  }
}

// Adds up the slabs of a tile of sample b, in order, into its maps.
template <class A>
__device__ __forceinline__ void combine_slabs(const CudaLayerCamParams& p, int64_t b, int tile,
                                              Extremes<A>* scratch) {
  const int size = p.plane, begin = tile * p.tile, end = min(begin + p.tile, size);
  for (int r = 0; r < p.rule_count; ++r) {
    const A* const parts = static_cast<const A*>(p.parts) + (b * p.slabs * p.R + r) * size;
    A* const map = static_cast<A*>(p.maps) + (r * p.B + b) * size;
    const int64_t stride = p.R * size;
    Extremes<A> found = Extremes<A>::none();
    for (int i = begin + threadIdx.x; i < end; i += kThreads) {
      A sum = load_fresh(parts + i);
#pragma unroll 4
      for (int slab = 1; slab < p.slabs; ++slab) sum += load_fresh(parts + slab * stride + i);
      map[i] = sum;
      found.add(sum);
    }
    record_extremes(p, b, r, tile, block_extremes(found, scratch));
  }
}

}  // namespace camfuse::cuda
