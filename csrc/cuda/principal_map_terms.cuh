// principal_map's first kernel: the terms of all samples, line by line, in the type that sums are
// in. The iteration reads them dozens of times. Torch-free.
#pragma once

#include "cuda/device.cuh"
#include "cuda/principal_map.h"

namespace camfuse::cuda {

constexpr int kTermsThreads = 256;
constexpr int kTermsLines = kTermsThreads / kWarp;  // that a block makes

// The term of a channel at a position of sample b.
template <class T>
__device__ __forceinline__ Acc<T> term_at(const CudaPrincipalMapParams& p, int64_t b, int c,
                                          int position) {
  using A = Acc<T>;
  const auto read = [&](const LayerView& view) {
    const int y = position < p.width ? 0 : position / p.width, x = position - y * p.width;
    return to_acc(static_cast<const T*>(
        view.data)[b * view.batch + c * view.channel + y * view.row + x * view.column]);
  };
  const A activation = read(p.a);
  if (p.weighted) {
    const T* const weights = static_cast<const T*>(p.weights.data) + b * p.weights.batch;
    return activation * to_acc(weights[c * p.weights.channel]);
  }
  if (!p.has_gradients) return activation;
  A gradient = read(p.g);
  if (p.rectifies_gradients && gradient < 0) gradient = 0;  // NaN stays NaN
  if (p.magnifies_gradients) gradient = fabs(gradient);
  const A product = activation * gradient;
  return p.rectifies_products && product < 0 ? 0 : product;
}

// A warp for each line.
template <class T>
__global__ void __launch_bounds__(kTermsThreads)
    make_terms(const __grid_constant__ CudaPrincipalMapParams p) {
  const int blocks = (p.lines + kTermsLines - 1) / kTermsLines;  // of a sample
  const int b = blockIdx.x / blocks;
  const int line = blockIdx.x % blocks * kTermsLines + threadIdx.x / kWarp;
  if (line >= p.lines) return;
  Acc<T>* const out = static_cast<Acc<T>*>(p.made_terms) + (int64_t{b} * p.lines + line) * p.length;
  for (int i = threadIdx.x % kWarp; i < p.length; i += kWarp) {
    out[i] = p.rows ? term_at<T>(p, b, i, line) : term_at<T>(p, b, line, i);
  }
}

}  // namespace camfuse::cuda
