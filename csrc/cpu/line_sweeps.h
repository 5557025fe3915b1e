// The sweeps over contiguous lines of A and G that layer_cam is made of. Torch-free.
#pragma once

#include "common/layer_cam_args.h"
#include "cpu/layer_cam_params.h"
#include "cpu/simd.h"

namespace camfuse {
namespace CAMFUSE_ISA {

// What is summed. x is A and y is G, but for gradcam++'s terms, where x is G.
enum class Term {
  kX,                 // x
  kY,                 // y
  kScaled,            // x * factor
  kScaledMagnitude,   // |x * factor|
  kProduct,           // x * y
  kProductMagnitude,  // |x * y|
  kPositiveProduct,   // max(x * y, 0)
  kPositiveGradient,  // x * max(y, 0)
  kMagnitudeOfY,      // x * |y|
  kAlpha,             // gradcam++'s max(x, 0) * alpha(x); factor is the plane sum of A
  kAlphaInRange,      // the same with a quotient in f32, where alpha_fits_f32
};

// Terms that one sweep over the lines sums side by side.
template <Term... terms>
struct Terms {
  static constexpr int kCount = sizeof...(terms);
};

constexpr bool has_factor(Term term) {
  return term == Term::kScaled || term == Term::kScaledMagnitude || term == Term::kAlpha ||
         term == Term::kAlphaInRange;
}
constexpr bool has_x(Term term) { return term != Term::kY; }
constexpr bool has_y(Term term) { return !has_factor(term) && term != Term::kX; }

template <Term term, class Acc>
CAMFUSE_INLINE Vec<Acc> evaluate(Vec<Acc> x, Vec<Acc> y, Vec<Acc> factor) {
  if constexpr (term == Term::kX) return x;
  if constexpr (term == Term::kY) return y;
  if constexpr (term == Term::kScaled) return x * factor;
  if constexpr (term == Term::kScaledMagnitude) return magnitude<Acc>(x * factor);
  if constexpr (term == Term::kProduct) return x * y;
  if constexpr (term == Term::kProductMagnitude) return magnitude<Acc>(x * y);
  if constexpr (term == Term::kPositiveProduct) return relu<Acc>(x * y);
  if constexpr (term == Term::kPositiveGradient) return x * relu<Acc>(y);
  if constexpr (term == Term::kMagnitudeOfY) return x * magnitude<Acc>(y);
  if constexpr (term == Term::kAlpha || term == Term::kAlphaInRange) {
    // The denominator's summands can cancel: always in Acc.
    const Vec<Acc> square = x * x;
    const Vec<Acc> denominator =
        square * (2 + x * factor) + static_cast<Acc>(kGradCamPlusPlusEpsilon);
    if constexpr (term == Term::kAlpha) {
      return relu<Acc>(x) * (x == 0 ? Vec<Acc>{} : square / denominator);
    } else {
      using Floats = Vector<float, kLanes<Acc>>;
      const Floats alpha =
          __builtin_convertvector(square, Floats) / __builtin_convertvector(denominator, Floats);
      return relu<Acc>(x) * widen<kLanes<Acc>>(alpha);
    }
  }
}

// Lines of equal length, at least a vector long, `stride` elements apart.
template <class T>
struct Lines {
  const T* data;
  int64_t stride;
  int64_t ahead = 0;  // bytes from what is read to what is asked for meanwhile
};

// How far ahead memory is asked for, across the page border where the processor's own prefetcher
// stops.
constexpr int64_t kFetchBytes = 1024;
// Of lines so short the next group is asked for: at kFetchBytes lies a line of this group.
constexpr int64_t kShortGroupBytes = 16 << 10;

// The first of kGroup lines that others follow.
template <class T>
CAMFUSE_INLINE Lines<T> group_of_lines(const T* data, int64_t stride) {
  const int64_t bytes = kGroup * stride * static_cast<int64_t>(sizeof(T));
  const bool is_short = bytes > kFetchBytes && bytes <= kShortGroupBytes;
  return {data, stride, is_short ? bytes : kFetchBytes};
}

// Copies the planes [h, w] of `count` channels, wherever their elements lie, to `packed`,
// [count, length], with zeros behind each.
template <class T>
CAMFUSE_INLINE Lines<T> pack_planes(const T* from, const LayerView& view, int64_t h, int64_t w,
                                    int64_t length, int count, T* packed) {
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      const T* at = from + y * view.row + x * view.column;
      for (int j = 0; j < count; ++j) packed[j * length + y * w + x] = at[j * view.channel];
    }
  }
  for (int j = 0; j < count; ++j) {
    for (int64_t i = h * w; i < length; ++i) packed[j * length + i] = T{};
  }
  return {packed, length};
}

// The vector at element i of line j. Asking for addresses past the end is harmless.
template <class Acc, class T>
CAMFUSE_INLINE Vec<Acc> stream(Lines<T> lines, int j, int64_t i) {
  const T* at = lines.data + j * lines.stride + i;
  __builtin_prefetch(reinterpret_cast<const char*>(at) + lines.ahead);
  return load<Acc>(at);
}

// out[k][i] += sum_j terms_k(x_j[i], y_j[i], factor), j < J, i < n, with out[k] at out +
// k * out_stride. `factors` holds one value per line j, or per element i.
template <bool rows, int J, class Acc, class T, Term... terms>
CAMFUSE_INLINE void add_lines(Terms<terms...>, Lines<T> x, Lines<T> y, const Acc* factors,
                              int64_t n, Acc* out, int64_t out_stride) {
  constexpr int L = kLanes<Acc>, K = sizeof...(terms);
  constexpr bool with_factor = (has_factor(terms) || ...);
  constexpr bool with_x = (has_x(terms) || ...), with_y = (has_y(terms) || ...);
  static_assert(J == 1 || J == 4);
  Vec<Acc> line_factor[J];
  if constexpr (with_factor && !rows) {
    for (int j = 0; j < J; ++j) line_factor[j] = splat<Acc>(factors[j]);
  }
  const auto add = [&](int64_t i, auto only) __attribute__((always_inline)) {
    Vec<Acc> values[J][K];
    for (int j = 0; j < J; ++j) {
      Vec<Acc> factor{}, x_value{}, y_value{};
      if constexpr (with_factor) factor = rows ? load<Acc>(factors + i) : line_factor[j];
      if constexpr (with_x) x_value = stream<Acc>(x, j, i);
      if constexpr (with_y) y_value = stream<Acc>(y, j, i);
      int k = 0;
      ((values[j][k++] = evaluate<terms, Acc>(x_value, y_value, factor)), ...);
    }
    for (int k = 0; k < K; ++k) {
      Vec<Acc> sum = values[0][k];
      if constexpr (J == 4) {
        sum = (values[0][k] + values[1][k]) + (values[2][k] + values[3][k]);
      }
      Acc* at = out + k * out_stride + i;
      store<Acc>(at, load<Acc>(at) + only(sum));
    }
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) add(i, [](Vec<Acc> sum) { return sum; });
  if (i < n) {  // the last whole vector, without the lanes already added
    const int64_t last = n - L;
    add(last, [&](Vec<Acc> sum) { return from_lane<Acc>(sum, i - last); });
  }
}

// out[k][j] = sum_i terms_k(x_j[i], y_j[i], factor), j < J, i < n, laid out as in add_lines.
template <bool rows, int J, class Acc, class T, Term... terms>
CAMFUSE_INLINE void sum_lines(Terms<terms...>, Lines<T> x, Lines<T> y, const Acc* factors,
                              int64_t n, Acc* out, int64_t out_stride) {
  constexpr int L = kLanes<Acc>, K = sizeof...(terms);
  constexpr bool with_factor = (has_factor(terms) || ...);
  constexpr bool with_x = (has_x(terms) || ...), with_y = (has_y(terms) || ...);
  Vec<Acc> line_factor[J];
  if constexpr (with_factor && !rows) {
    for (int j = 0; j < J; ++j) line_factor[j] = splat<Acc>(factors[j]);
  }
  Vec<Acc> totals[J][K] = {};
  const auto add = [&](int64_t i, auto only) __attribute__((always_inline)) {
    for (int j = 0; j < J; ++j) {
      Vec<Acc> factor{}, x_value{}, y_value{};
      if constexpr (with_factor) factor = rows ? load<Acc>(factors + i) : line_factor[j];
      if constexpr (with_x) x_value = stream<Acc>(x, j, i);
      if constexpr (with_y) y_value = stream<Acc>(y, j, i);
      int k = 0;
      ((totals[j][k++] += only(evaluate<terms, Acc>(x_value, y_value, factor))), ...);
    }
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) add(i, [](Vec<Acc> value) { return value; });
  if (i < n) {
    const int64_t last = n - L;
    add(last, [&](Vec<Acc> value) { return from_lane<Acc>(value, i - last); });
  }
  for (int k = 0; k < K; ++k) {
    for (int j = 0; j < J; ++j) out[k * out_stride + j] = sum_lanes<Acc>(totals[j][k]);
  }
}

// The larger of |x_j[i]| and `largest`, per lane, j < J, i < n.
template <int J, class T>
CAMFUSE_INLINE Vec<float> find_largest(Lines<T> x, int64_t n, Vec<float> largest) {
  constexpr int L = kLanes<float>;
  const auto look = [&](int64_t i) __attribute__((always_inline)) {
    for (int j = 0; j < J; ++j) {
      const Vec<float> size = magnitude<float>(stream<float>(x, j, i));
      largest = size > largest ? size : largest;
    }
  };
  for (int64_t i = 0; i + L <= n; i += L) look(i);
  look(n - L);
  return largest;
}

// Whether the squares and denominators of gradcam++ are in the range of f32, for gradients up to
// `largest` and plane sums of A `sums` [count]. Where a square underflows, the channel weights that
// it adds to do so too.
inline bool alpha_fits_f32(Vec<float> largest, const double* sums, int64_t count) {
  float lanes[kLanes<float>];
  store<float>(lanes, largest);
  double gradient = 0, sum = 0;
  for (float lane : lanes) gradient = lane > gradient ? static_cast<double>(lane) : gradient;
  for (int64_t i = 0; i < count; ++i) {
    const double size = sums[i] < 0 ? -sums[i] : sums[i];
    sum = size <= sum ? sum : size;  // NaN stays
  }
  return gradient * gradient * (2 + gradient * sum) < 1e37;
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
