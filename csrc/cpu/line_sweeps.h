// The sweeps over contiguous lines of A and G that layer_cam is made of. Torch-free.
#pragma once

#include "cpu/simd.h"

namespace camfuse {
namespace CAMFUSE_ISA {

constexpr double kGradCamPlusPlusEpsilon = 1e-6;

// What is summed. x and y are A and G, or just one of the two as x.
enum class Term {
  kValue,             // x
  kScaled,            // x * factor
  kScaledMagnitude,   // |x * factor|
  kProduct,           // x * y
  kProductMagnitude,  // |x * y|
  kPositiveProduct,   // max(x * y, 0)
  kPositiveGradient,  // x * max(y, 0)
  kAlpha,             // gradcam++'s max(x, 0) * alpha(x); factor is the plane sum of A
};

constexpr bool has_factor(Term term) {
  return term == Term::kScaled || term == Term::kScaledMagnitude || term == Term::kAlpha;
}
constexpr bool has_y(Term term) { return !has_factor(term) && term != Term::kValue; }

template <Term term, class Acc>
CAMFUSE_INLINE Vec<Acc> evaluate(Vec<Acc> x, Vec<Acc> y, Vec<Acc> factor) {
  if constexpr (term == Term::kValue) return x;
  if constexpr (term == Term::kScaled) return x * factor;
  if constexpr (term == Term::kScaledMagnitude) return magnitude<Acc>(x * factor);
  if constexpr (term == Term::kProduct) return x * y;
  if constexpr (term == Term::kProductMagnitude) return magnitude<Acc>(x * y);
  if constexpr (term == Term::kPositiveProduct) return relu<Acc>(x * y);
  if constexpr (term == Term::kPositiveGradient) return x * relu<Acc>(y);
  if constexpr (term == Term::kAlpha) {
    const Vec<Acc> square = x * x;
    const Vec<Acc> alpha =
        square / (2 * square + square * x * factor + static_cast<Acc>(kGradCamPlusPlusEpsilon));
    return relu<Acc>(x) * (x == 0 ? Vec<Acc>{} : alpha);
  }
}

// Lines of equal length, at least a vector long, `stride` elements apart.
template <class T>
struct Lines {
  const T* data;
  int64_t stride;
};

// Asks for what a sweep reads soon, across the page border where the processor's own prefetcher
// stops. Asking for addresses past the end is harmless.
CAMFUSE_INLINE void prefetch(const void* at) {
  __builtin_prefetch(static_cast<const char*>(at) + 1024);
}

// out[i] += sum_j term(x_j[i], y_j[i], factor), j < J, i < n. `factors` holds one value per line j,
// or per element i.
template <Term term, bool rows, int J, class Acc, class T>
CAMFUSE_INLINE void add_lines(Lines<T> x, Lines<T> y, const Acc* factors, int64_t n,
                              Acc* __restrict out) {
  constexpr int L = kLanes<Acc>;
  Vec<Acc> line_factor[J];
  if constexpr (has_factor(term) && !rows) {
    for (int j = 0; j < J; ++j) line_factor[j] = splat<Acc>(factors[j]);
  }
  const auto sweep = [&](int64_t i) __attribute__((always_inline)) {
    Vec<Acc> terms[J];
    for (int j = 0; j < J; ++j) {
      prefetch(x.data + j * x.stride + i);
      if constexpr (has_y(term)) prefetch(y.data + j * y.stride + i);
      Vec<Acc> factor{}, y_value{};
      if constexpr (has_factor(term)) {
        if constexpr (rows)
          factor = load<Acc>(factors + i);
        else
          factor = line_factor[j];
      }
      if constexpr (has_y(term)) y_value = load<Acc>(y.data + j * y.stride + i);
      terms[j] = evaluate<term, Acc>(load<Acc>(x.data + j * x.stride + i), y_value, factor);
    }
    if constexpr (J == 4)
      return (terms[0] + terms[1]) + (terms[2] + terms[3]);
    else
      return terms[0];
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) store<Acc>(out + i, load<Acc>(out + i) + sweep(i));
  if (i < n) {  // the last whole vector, without the lanes already added
    const int64_t last = n - L;
    const Vec<Acc> rest = from_lane<Acc>(sweep(last), i - last);
    store<Acc>(out + last, load<Acc>(out + last) + rest);
  }
}

// sums[j] = sum_i term(x_j[i], y_j[i], factor), j < J, i < .
template <Term term, bool rows, int J, class Acc, class T>
CAMFUSE_INLINE void sum_lines(Lines<T> x, Lines<T> y, const Acc* factors, int64_t n, Acc* sums) {
  constexpr int L = kLanes<Acc>;
  Vec<Acc> total[J] = {};
  const auto value = [&](int j, int64_t i) __attribute__((always_inline)) {
    Vec<Acc> factor{}, y_value{};
    if constexpr (has_factor(term)) {
      factor = rows ? load<Acc>(factors + i) : splat<Acc>(factors[j]);
    }
    if constexpr (has_y(term)) y_value = load<Acc>(y.data + j * y.stride + i);
    return evaluate<term, Acc>(load<Acc>(x.data + j * x.stride + i), y_value, factor);
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    for (int j = 0; j < J; ++j) {
      prefetch(x.data + j * x.stride + i);
      if constexpr (has_y(term)) prefetch(y.data + j * y.stride + i);
      total[j] += value(j, i);
    }
  }
  if (i < n) {
    const int64_t last = n - L;
    for (int j = 0; j < J; ++j) total[j] += from_lane<Acc>(value(j, last), i - last);
  }
  for (int j = 0; j < J; ++j) sums[j] = sum_lanes<Acc>(total[j]);
}

// Minimum and maximum of x[0..n); both NaN if an element is.
template <class Acc>
void find_extremes(const Acc* x, int64_t n, Acc* extremes) {
  constexpr int L = kLanes<Acc>;
  Acc low = x[0], high = x[0];
  int64_t i = 0;
  if (n >= L) {
    Vec<Acc> lows = load<Acc>(x), highs = lows;
    for (i = L; i + L <= n; i += L) {
      const Vec<Acc> value = load<Acc>(x + i);
      lows = ((value < lows) | (value != value)) ? value : lows;
      highs = ((value > highs) | (value != value)) ? value : highs;
    }
    Acc lane[2][L];
    store<Acc>(lane[0], lows);
    store<Acc>(lane[1], highs);
    for (int l = 0; l < L; ++l) {
      if (lane[0][l] < low || lane[0][l] != lane[0][l]) low = lane[0][l];
      if (lane[1][l] > high || lane[1][l] != lane[1][l]) high = lane[1][l];
    }
  }
  for (; i < n; ++i) {
    if (x[i] < low || x[i] != x[i]) low = x[i];
    if (x[i] > high || x[i] != x[i]) high = x[i];
  }
  extremes[0] = low;
  extremes[1] = high;
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
