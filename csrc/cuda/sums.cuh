// Sums that do not lose what cancels: in f32 with their rounding errors carried along, so that the
// kernels of f32 inputs need no f64 arithmetic per element. Torch-free.
#pragma once

#include "common/layer_cam_args.h"
#include "cuda/device.cuh"

namespace camfuse::cuda {

// Note: [Compensated f32]
// Each addition's rounding error is exact in f32 (Knuth, TAOCP 2, 4.2.2, theorem B), as a product's
// is with a fused multiply-add; errors are added up beside the sum (Ogita, Rump & Oishi 2005,
// "Accurate sum and dot product"). The result is as if computed in twice the precision, then
// rounded, within the range of f32. No compiler flag may reorder or contract this: -fmad=false, no
// fast math.

// a + b, and in `error` what rounding took away.
__device__ __forceinline__ float two_sum(float a, float b, float* error) {
  const float sum = a + b;
  const float part = sum - a;
  *error = (a - (sum - part)) + (b - part);
  return sum;
}

// a * b likewise.
__device__ __forceinline__ float two_product(float a, float b, float* error) {
  const float product = a * b;
  *error = fused(a, b, -product);
  return product;
}

template <class A>
struct Sum;

template <>
struct Sum<float> {
  float high = 0, low = 0;

  __device__ __forceinline__ void add(float x) {
    float error;
    high = two_sum(high, x, &error);
    low += error;
  }
  __device__ __forceinline__ void add_product(float x, float y) {
    float error;
    const float product = two_product(x, y, &error);
    add(product);
    low += error;
  }
  __device__ __forceinline__ void add(const Sum& other) {
    add(other.high);
    low += other.low;
  }
  // The errors of a sum that is infinite are NaN.
  __device__ __forceinline__ double value() const {
    const bool finite = fabsf(high) <= 3.4028235e38f;
    return static_cast<double>(high) + (finite ? static_cast<double>(low) : 0.0);
  }
  static __device__ __forceinline__ Sum fresh(const Sum* from) {
    Sum sum;
    sum.high = load_fresh(&from->high);
    sum.low = load_fresh(&from->low);
    return sum;
  }
  __device__ __forceinline__ Sum from_lane(int distance) const {
    Sum other;
    other.high = __shfl_down_sync(kAllLanes, high, distance);
    other.low = __shfl_down_sync(kAllLanes, low, distance);
    return other;
  }
};

template <>
struct Sum<double> {
  double total = 0;

  __device__ __forceinline__ void add(double x) { total += x; }
  __device__ __forceinline__ void add_product(double x, double y) { total = fused(x, y, total); }
  __device__ __forceinline__ void add(const Sum& other) { total += other.total; }
  __device__ __forceinline__ double value() const { return total; }
  static __device__ __forceinline__ Sum fresh(const Sum* from) {
    Sum sum;
    sum.total = load_fresh(&from->total);
    return sum;
  }
  __device__ __forceinline__ Sum from_lane(int distance) const {
    Sum other;
    other.total = __shfl_down_sync(kAllLanes, total, distance);
    return other;
  }
};

// The sum over a warp, in lane 0.
template <class A>
__device__ __forceinline__ Sum<A> warp_sum(Sum<A> sum) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) sum.add(sum.from_lane(distance));
  return sum;
}

// The plane sum of A that gradcam++ needs, as precise as A's type asks for.
template <class A>
struct PlaneTotal;
template <>
struct PlaneTotal<double> {
  double value;
  __device__ __forceinline__ explicit PlaneTotal(double sum) : value(sum) {}
};
template <>
struct PlaneTotal<float> {
  float high, low;
  __device__ __forceinline__ explicit PlaneTotal(double sum)
      : high(static_cast<float>(sum)), low(static_cast<float>(sum - static_cast<double>(high))) {}
};

// gradcam++'s max(g, 0) * g^2 / (2 g^2 + g^3 total + epsilon). The denominator's summands cancel
// where `total` is negative, so it is computed with its rounding errors.
__device__ __forceinline__ float alpha_term(float g, PlaneTotal<float> total) {
  if (!(g > 0)) return g * 0.0f;  // NaN if g is not finite
  // Both halves of the quotient over g^2, where that would overflow.
  const bool large = g > 1;
  constexpr float kHigh = static_cast<float>(kGradCamPlusPlusEpsilon);
  constexpr float kLow = static_cast<float>(kGradCamPlusPlusEpsilon - static_cast<double>(kHigh));
  float square_low, product_low, inner_low, scaled_low, sum_low;
  float square = two_product(g, g, &square_low);
  const float epsilon = large ? kHigh / square : kHigh;
  const float epsilon_low = large ? 0.0f : kLow;
  square = large ? 1.0f : square;
  square_low = large ? 0.0f : square_low;

  const float product = two_product(g, total.high, &product_low);
  if (fabsf(product) > 3.4028235e38f)
    return g * 0.0f + 1.0f / total.high;  // its limit; NaN if g is not finite
  product_low = fused(g, total.low, product_low);
  const float inner = two_sum(2.0f, product, &inner_low);
  inner_low += product_low;
  const float scaled = two_product(square, inner, &scaled_low);
  scaled_low += square * inner_low + square_low * inner;
  const float sum = two_sum(scaled, epsilon, &sum_low);
  return g * (square / (sum + (sum_low + (scaled_low + epsilon_low))));
}

__device__ __forceinline__ double alpha_term(double g, PlaneTotal<double> total) {
  if (!(g > 0)) return g * 0.0;
  const double square = g * g;
  return g * (square / (square * (2 + g * total.value) + kGradCamPlusPlusEpsilon));
}

// The largest and smallest of what it has seen; both NaN once it saw NaN.
template <class A>
struct Extremes {
  A low, high;

  static __device__ __forceinline__ Extremes none() {
    return {static_cast<A>(HUGE_VAL), -static_cast<A>(HUGE_VAL)};
  }
  __device__ __forceinline__ void add(A value) { add(Extremes{value, value}); }
  __device__ __forceinline__ void add(const Extremes& other) {
    if (other.low < low || other.low != other.low) low = other.low;
    if (other.high > high || other.high != other.high) high = other.high;
  }
  __device__ __forceinline__ Extremes from_lane(int distance) const {
    return {__shfl_down_sync(kAllLanes, low, distance),
            __shfl_down_sync(kAllLanes, high, distance)};
  }
};

}  // namespace camfuse::cuda
