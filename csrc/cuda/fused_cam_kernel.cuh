// The finishing half of fused_cam: a map to [0, 1], then to the size asked for. Torch-free.
#pragma once

#include "cuda/layer_cam_params.h"
#include "cuda/sums.cuh"

namespace camfuse::cuda {

// Note: [Bilinear taps]
// With half-pixel centres, output i of n lies at (i + 1/2) * size / n - 1/2 of the input, which is
// ((2 i + 1) size - n) / 2n: a quotient of whole numbers, whose remainder is the second tap's
// share.
template <class A>
struct Tap {
  unsigned first, second;
  A share;  // of the second

  // 2 n size must fit 32 bits.
  __device__ __forceinline__ Tap(unsigned i, unsigned n, unsigned size) {
    const unsigned numerator = (2 * i + 1) * size, divisor = 2 * n;
    const unsigned at = numerator > n ? numerator - n : 0;
    share = static_cast<A>(at % divisor) / static_cast<A>(divisor);
    first = min(at / divisor, size - 1);
    second = min(first + 1, size - 1);
  }
};

// A constant map becomes 0. One that holds NaN has a range of NaN and becomes NaN.
template <class A>
struct Normalization {
  A low, high;
  bool relu;

  __device__ __forceinline__ Normalization(Extremes<A> range, bool rectifies)
      : low(range.low), high(range.high), relu(rectifies) {
    low = rectified(low);
    high = rectified(high);
  }
  __device__ __forceinline__ A rectified(A x) const { return relu && x < 0 ? 0 : x; }
  __device__ __forceinline__ A operator()(A x) const {
    return low == high ? 0 : (rectified(x) - low) / (high - low);
  }
};

// Pixels first, first + step, ... of the finished picture of sample b.
template <class A>
__device__ __forceinline__ void show(const Display& d, const A* map, int64_t b, Extremes<A> range,
                                     unsigned first, unsigned step) {
  const auto h = static_cast<unsigned>(d.h), w = static_cast<unsigned>(d.w);
  const auto H = static_cast<unsigned>(d.H), W = static_cast<unsigned>(d.W), pixels = H * W;
  A* const result = static_cast<A*>(d.result) + b * pixels;
  const Normalization<A> normalized(range, d.relu);
  for (unsigned pixel = first; pixel < pixels; pixel += step) {
    const Tap<A> y(pixel / W, H, h), x(pixel % W, W, w);
    const auto wide = [&](unsigned row) {
      const A left = normalized(load_fresh(map + row * w + x.first));
      const A right = normalized(load_fresh(map + row * w + x.second));
      return left * (1 - x.share) + right * x.share;
    };
    result[pixel] = wide(y.first) * (1 - y.share) + wide(y.second) * y.share;
  }
}

// Block (b, part): kShownAtOnce pixels of the picture of sample b.
constexpr int kShownAtOnce = 4 * kThreads;

template <class A>
__global__ void __launch_bounds__(kThreads)
    show_maps(const __grid_constant__ Display d, const A* maps, const A* ranges) {
  const unsigned parts = (static_cast<unsigned>(d.H * d.W) + kShownAtOnce - 1) / kShownAtOnce;
  const unsigned part = blockIdx.x % parts;
  const int64_t b = blockIdx.x / parts;
  show(d, maps + b * d.h * d.w, b, {ranges[2 * b], ranges[2 * b + 1]},
       part * kThreads + threadIdx.x, parts * kThreads);
}

}  // namespace camfuse::cuda
