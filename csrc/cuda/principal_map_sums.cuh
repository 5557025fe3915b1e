// Sums by all threads of a block, in an order that never changes. Torch-free.
#pragma once

#include "common/principal_map_args.h"
#include "cuda/device.cuh"

namespace camfuse::cuda {

constexpr int kPrincipalThreads = 512;
constexpr int kPrincipalWarps = kPrincipalThreads / kWarp;

// What a block shares while it works on its sample.
template <class A>
struct PrincipalState {
  double diagonal[kMostSteps], beside[kMostSteps];  // the tridiagonal matrix
  double vector[kMostSteps], pivots[kMostSteps];    // its eigenvector
  double value;                                     // its largest eigenvalue
  A lengths[kMostSteps + 2];                        // of the basis vectors
  A weights[kMostSteps + 2];                        // of them, in what is made of them
  A dots[kMostSteps + 2];                           // of the newest with them
  A parts[kPrincipalThreads];
  A warps[kPrincipalWarps];
  A total;
  int done;
};

// Elements that a thread has in flight; in f64 more would not fit its registers.
template <class A>
constexpr int kUnrolled = sizeof(A) == 8 ? 1 : 4;

template <class A>
__device__ __forceinline__ A warp_total(A x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, distance);
  }
  return x;
}

// The sum of every thread's x, for all threads.
template <class A>
__device__ __forceinline__ A block_total(PrincipalState<A>& state, A x) {
  x = warp_total(x);
  if (threadIdx.x % kWarp == 0) state.warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  A total = 0;
  for (int i = 0; i < kPrincipalWarps; ++i) total += state.warps[i];
  __syncthreads();  // so that the next sum may begin
  return total;
}

// The largest of every thread's x, for all threads; NaN once there is one.
template <class A>
__device__ __forceinline__ A block_largest(PrincipalState<A>& state, A x) {
  state.parts[threadIdx.x] = x;
  __syncthreads();
  A largest = state.parts[0];
#pragma unroll 1
  for (int i = 1; i < kPrincipalThreads; ++i) {
    const A other = state.parts[i];
    if (other > largest || other != other) largest = other;
  }
  __syncthreads();
  return largest;
}

// Calls put(line, sum of value(line, i) over i < length) for each line: a warp for each.
template <class A, class Value, class Put>
__device__ __forceinline__ void sum_each_line(int lines, int length, const Value& value,
                                              const Put& put) {
  const int lane = threadIdx.x % kWarp;
  for (int line = threadIdx.x / kWarp; line < lines; line += kPrincipalWarps) {
    A sum = 0;
#pragma unroll kUnrolled < A>
    for (int i = lane; i < length; i += kWarp) sum += value(line, i);
    sum = warp_total(sum);
    if (lane == 0) put(line, sum);
  }
}

// Calls put(i, sum of value(line, i) over all lines) for each i < length. Where these are fewer
// than threads, groups of threads share the lines of each.
template <class A, class Value, class Put>
__device__ __forceinline__ void sum_over_lines(PrincipalState<A>& state, int lines, int length,
                                               const Value& value, const Put& put) {
  const auto sum_from = [&](int first, int step, int i) {
    A sums[2] = {0, 0};  // two chains of additions, so that one need not wait
    int line = first;
#pragma unroll kUnrolled < A>
    for (; line + step < lines; line += 2 * step) {
      sums[0] += value(line, i);
      sums[1] += value(line + step, i);
    }
    if (line < lines) sums[0] += value(line, i);
    return sums[0] + sums[1];
  };
  const int groups = kPrincipalThreads / length;
  if (groups < 2) {
    for (int i = threadIdx.x; i < length; i += kPrincipalThreads) put(i, sum_from(0, 1, i));
    return;
  }
  const int group = threadIdx.x / length, i = threadIdx.x % length;
  if (group < groups) state.parts[threadIdx.x] = sum_from(group, groups, i);
  __syncthreads();
  if (group == 0) {
    A sum = 0;
    for (int other = 0; other < groups; ++other) sum += state.parts[other * length + i];
    put(i, sum);
  }
  __syncthreads();
}

}  // namespace camfuse::cuda
