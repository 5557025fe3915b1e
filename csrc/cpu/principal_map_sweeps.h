// The sweeps over lines of a layer that principal_map is made of. Torch-free.
#pragma once

#include "cpu/principal_map_terms.h"

namespace camfuse {
namespace CAMFUSE_ISA {

// The terms of J lines, and the means of channels: of the elements of a line (rows), or of the
// lines.
template <bool rows, int J, class Acc>
struct TermLines {
  Lines<Acc> terms;
  const Acc* means;  // of the first line, or of the first element

  CAMFUSE_INLINE Vec<Acc> value(int j, int64_t i) const { return stream<Acc>(terms, j, i); }
  CAMFUSE_INLINE Vec<Acc> centred(int j, int64_t i) const {
    return value(j, i) - (rows ? load<Acc>(means + i) : splat<Acc>(means[j]));
  }
};

template <int J, class Acc>
CAMFUSE_INLINE Vec<Acc> sum_of(const Vec<Acc>* x) {
  static_assert(J == 1 || J == 4);
  if constexpr (J == 4) return (x[0] + x[1]) + (x[2] + x[3]);
  return x[0];
}

template <class Acc>
CAMFUSE_INLINE void add_to(Acc* out, Vec<Acc> x) {
  store<Acc>(out, load<Acc>(out) + x);
}

// The larger one per lane; NaN stays.
template <class Acc>
CAMFUSE_INLINE Vec<Acc> larger(Vec<Acc> x, Vec<Acc> largest) {
  return ((x > largest) | (x != x)) ? x : largest;
}

// out[j] = sum_i x_j[i] (planes), or out[i] += sum_j x_j[i] (rows); and the largest |x|.
template <bool rows, int J, class Acc>
CAMFUSE_INLINE void measure(const TermLines<rows, J, Acc>& lines, int64_t n, Acc* out,
                            Vec<Acc>& largest) {
  Vec<Acc> sums[J] = {};
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    Vec<Acc> x[J];
    for (int j = 0; j < J; ++j) {
      x[j] = only(lines.value(j, i));
      largest = larger<Acc>(magnitude<Acc>(x[j]), largest);
      if constexpr (!rows) sums[j] += x[j];
    }
    if constexpr (rows) add_to<Acc>(out + i, sum_of<J, Acc>(x));
  });
  if constexpr (!rows) {
    for (int j = 0; j < J; ++j) out[j] = sum_lanes<Acc>(sums[j]);
  }
}

// out[i] += sum_j (scale x_j[i])^2, for planes.
template <int J, class Acc>
CAMFUSE_INLINE void add_squares(const TermLines<false, J, Acc>& lines, int64_t n, Acc scale,
                                Acc* out) {
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    Vec<Acc> squares[J];
    for (int j = 0; j < J; ++j) {
      const Vec<Acc> x = lines.value(j, i) * scale;
      squares[j] = x * x;
    }
    add_to<Acc>(out + i, only(sum_of<J, Acc>(squares)));
  });
}

// out[j] = sum_i (scale x_j[i])^2, for rows.
template <int J, class Acc>
CAMFUSE_INLINE void sum_squares(const TermLines<true, J, Acc>& lines, int64_t n, Acc scale,
                                Acc* out) {
  Vec<Acc> sums[J] = {};
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    for (int j = 0; j < J; ++j) {
      const Vec<Acc> x = lines.value(j, i) * scale;
      sums[j] += only(x * x);
    }
  });
  for (int j = 0; j < J; ++j) out[j] = sum_lanes<Acc>(sums[j]);
}

// dots[j] = sum_i centred_j[i] * vector[i].
template <bool rows, int J, class Acc>
CAMFUSE_INLINE void dot_lines(const TermLines<rows, J, Acc>& lines, const Acc* vector, int64_t n,
                              Acc* dots) {
  Vec<Acc> sums[J] = {};
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    const Vec<Acc> y = only(load<Acc>(vector + i));
    for (int j = 0; j < J; ++j) sums[j] += lines.centred(j, i) * y;
  });
  for (int j = 0; j < J; ++j) dots[j] = sum_lanes<Acc>(sums[j]);
}

// out[i] += sum_j coefficients[j] * centred_j[i].
template <bool rows, int J, class Acc>
CAMFUSE_INLINE void add_multiples(const TermLines<rows, J, Acc>& lines, const Acc* coefficients,
                                  int64_t n, Acc* out) {
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    Vec<Acc> x[J];
    for (int j = 0; j < J; ++j) x[j] = lines.centred(j, i) * coefficients[j];
    add_to<Acc>(out + i, only(sum_of<J, Acc>(x)));
  });
}

// out[i] += sum_j centred_j[i].
template <bool rows, int J, class Acc>
CAMFUSE_INLINE void add_centred(const TermLines<rows, J, Acc>& lines, int64_t n, Acc* out) {
  for_vectors<Acc>(n, [&](int64_t i, auto only) __attribute__((always_inline)) {
    Vec<Acc> x[J];
    for (int j = 0; j < J; ++j) x[j] = lines.centred(j, i);
    add_to<Acc>(out + i, only(sum_of<J, Acc>(x)));
  });
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
