// What all threads of a block make of a value of each, in an order that never changes. Torch-free.
#pragma once

#include "cuda/device.cuh"

namespace camfuse::cuda {

constexpr int kImputeThreads = 1024;  // of a block, at most

// What a block shares.
struct ImputeSums {
  double warps[kImputeThreads / kWarp];
  double all;
};

template <class Join>
__device__ __forceinline__ double joined_by_warp(double x, const Join& join) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x = join(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

// Every thread's x, joined, for all threads; `none` changes nothing that it is joined with. One
// warp joins what all of them have, as f64 is slow on many devices.
template <class Join>
__device__ __forceinline__ double joined(ImputeSums& sums, double x, double none,
                                         const Join& join) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  x = joined_by_warp(x, join);
  if (lane == 0) sums.warps[warp] = x;
  __syncthreads();
  if (warp == 0) {
    const int warps = blockDim.x / kWarp;
    x = joined_by_warp(lane < warps ? sums.warps[lane] : none, join);
    if (lane == 0) sums.all = x;
  }
  __syncthreads();
  return sums.all;
}

__device__ __forceinline__ double block_sum(ImputeSums& sums, double x) {
  return joined(sums, x, 0, [](double a, double b) { return a + b; });
}

// NaN once there is one.
__device__ __forceinline__ double block_most(ImputeSums& sums, double x) {
  return joined(sums, x, -HUGE_VAL, [](double a, double b) { return b > a || b != b ? b : a; });
}

}  // namespace camfuse::cuda
