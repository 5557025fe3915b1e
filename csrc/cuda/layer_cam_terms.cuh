// What layer_cam's kernels share: weights of channels, and the terms of rules added up in shared
// memory, where any number of rules has room. Torch-free.
#pragma once

#include "cuda/layer_cam_params.h"
#include "cuda/sums.cuh"

namespace camfuse::cuda {

// Packs of A, and as many of G, that a thread reads before it uses the first: 64 bytes of each, but
// 32 of types whose elements grow to twice their size in registers.
template <class T>
constexpr int kAhead = sizeof(T) == 2 ? 2 : 4;

// The sums over a channel's plane that its weights are made of.
template <class A>
struct PlaneSums {
  Sum<A> g, a, ga;

  __device__ __forceinline__ void add(const CudaLayerCamParams& p, A x, A y) {
    if (p.needs_sum[kSumG]) g.add(y);
    if (p.needs_sum[kSumA]) a.add(x);
    if (p.needs_sum[kSumGA]) ga.add_product(x, y);
  }
};

// The weight of each slot from the plane's sums, `alpha` being gradcam++'s.
template <class A>
__device__ __forceinline__ A weight_of(const CudaLayerCamParams& p, WeightSlot slot,
                                       const PlaneSums<A>& sums, const Sum<A>& alpha) {
  switch (slot) {
    case kGradCamSlot: return static_cast<A>(sums.g.value() / static_cast<double>(p.plane));
    case kPlusPlusSlot: return static_cast<A>(alpha.value());
    default: return static_cast<A>(sums.ga.value() / (sums.a.value() + kXGradCamEpsilon));
  }
}

template <class A>
__device__ __forceinline__ A* channel_weights(const CudaLayerCamParams& p, WeightSlot slot,
                                              int64_t b) {
  return static_cast<A*>(p.channel_weights) + (slot * p.B + b) * p.C;
}

// Whether some rule scales by this slot's weights, which are computed.
__device__ __forceinline__ bool computes(const CudaLayerCamParams& p, WeightSlot slot) {
  return slot == kGradCamSlot    ? p.needs_sum[kSumG]
         : slot == kPlusPlusSlot ? p.needs_sum[kSumAlpha]
         : slot == kXGradCamSlot ? p.needs_sum[kSumGA]
                                 : false;
}

// The weights that the caller gave.
template <class T>
__device__ __forceinline__ Acc<T> given_weight(const CudaLayerCamParams& p, int64_t b, int c) {
  return to_acc(static_cast<const T*>(p.weights.data)[b * p.weights.batch + c * p.weights.channel]);
}

template <class A>
__device__ __forceinline__ A magnitude(A x) {
  return x < 0 ? -x : x;
}
template <class A>
__device__ __forceinline__ A relu(A x) {  // NaN stays NaN
  return x < 0 ? 0 : x;
}

// sum + term(x, y, weight). Multiplications are fused with the addition, by hand: compilers may
// not.
template <class A>
__device__ __forceinline__ A add_term(Term term, A sum, A x, A y, A weight) {
  switch (term) {
    case Term::kScaled: return fused(x, weight, sum);
    case Term::kScaledMagnitude: return sum + magnitude(x * weight);
    case Term::kProduct: return fused(x, y, sum);
    case Term::kProductMagnitude: return sum + magnitude(x * y);
    case Term::kPositiveProduct: return sum + relu(x * y);
    default: return fused(x, relu(y), sum);
  }
}

// Calls visit(constant) with `term` as a compile-time constant, so that loops hold no choice.
template <Term term>
struct TermConstant {
  static constexpr Term value = term;
};
template <class Visit>
__device__ __forceinline__ void visit_term(Term term, const Visit& visit) {
  switch (term) {
    case Term::kScaled: return visit(TermConstant<Term::kScaled>{});
    case Term::kScaledMagnitude: return visit(TermConstant<Term::kScaledMagnitude>{});
    case Term::kProduct: return visit(TermConstant<Term::kProduct>{});
    case Term::kProductMagnitude: return visit(TermConstant<Term::kProductMagnitude>{});
    case Term::kPositiveProduct: return visit(TermConstant<Term::kPositiveProduct>{});
    case Term::kPositiveGradient: return visit(TermConstant<Term::kPositiveGradient>{});
  }
}

constexpr bool is_scaled(Term term) {
  return term == Term::kScaled || term == Term::kScaledMagnitude;
}

}  // namespace camfuse::cuda
