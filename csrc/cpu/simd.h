// Vectors of the compiler's own kind, as wide as the instruction set has them, and exact loads of
// every dtype into them. Only for files that are built once per instruction set.
//
// Reductions keep one running value per lane and join the lanes in a fixed order, so results depend
// on the instruction set and on nothing else.
#pragma once

#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <type_traits>

// GCC notes that functions with vector arguments changed their ABI in version 4.6.
#pragma GCC diagnostic ignored "-Wpsabi"

#define CAMFUSE_INLINE inline __attribute__((always_inline))

namespace camfuse {
namespace CAMFUSE_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vector = typename VectorOf<T, N>::type;

template <class Acc>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Acc));

template <class Acc>
using Vec = Vector<Acc, kLanes<Acc>>;

template <class T, int N>
CAMFUSE_INLINE Vector<T, N> load_raw(const void* from) {
  Vector<T, N> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class To, class From>
CAMFUSE_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Conversions to lanes twice as wide. GCC 12 splits the plain ones in halves and joins them again.
template <int N>
CAMFUSE_INLINE Vector<double, N> widen(Vector<float, N> x) {
#if defined(__AVX512F__)
  if constexpr (N == 8) return _mm512_maskz_cvtps_pd(0xff, x);
#endif
  return __builtin_convertvector(x, Vector<double, N>);
}
template <int N>
CAMFUSE_INLINE Vector<uint32_t, N> widen(Vector<uint16_t, N> x) {
#if defined(__AVX512F__)
  if constexpr (N == 16) {
    return bit_cast<Vector<uint32_t, N>>(_mm512_maskz_cvtepu16_epi32(0xffff, bit_cast<__m256i>(x)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) {
    return bit_cast<Vector<uint32_t, N>>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(x)));
  }
#endif
  return __builtin_convertvector(x, Vector<uint32_t, N>);
}

template <int N>
CAMFUSE_INLINE Vector<float, N> load_floats(const float* from) {
  return load_raw<float, N>(from);
}

template <int N>
CAMFUSE_INLINE Vector<float, N> load_floats(const BFloat16* from) {
  return bit_cast<Vector<float, N>>(widen<N>(load_raw<uint16_t, N>(from)) << 16);
}

template <int N>
CAMFUSE_INLINE Vector<float, N> load_floats(const Half* from) {
  using Bits = Vector<uint32_t, N>;
  using Floats = Vector<float, N>;
  const Bits half = widen<N>(load_raw<uint16_t, N>(from));
  const Bits magnitude = half & 0x7fff;
  // Exponent and mantissa move to their places in a float; the exponent's bias grows by 112, and by
  // as much again for infinity and NaN, whose exponent is all ones in both formats.
  const Bits bias = magnitude >= 0x7c00 ? Bits{} + (224u << 23) : Bits{} + (112u << 23);
  const Floats normal = bit_cast<Floats>((magnitude << 13) + bias);
  // Below the smallest normal number a half is its mantissa times 2^-24.
  const Floats subnormal =
      __builtin_convertvector(bit_cast<Vector<int32_t, N>>(magnitude), Floats) * 0x1p-24f;
  const Bits value = magnitude < 0x0400 ? bit_cast<Bits>(subnormal) : bit_cast<Bits>(normal);
  return bit_cast<Floats>(value | ((half & 0x8000) << 16));
}

// The vector at `from`, converted to Acc.
template <class Acc, class T>
CAMFUSE_INLINE Vec<Acc> load(const T* from) {
  if constexpr (sizeof(T) == sizeof(Acc)) {
    return load_raw<Acc, kLanes<Acc>>(from);
  } else if constexpr (sizeof(Acc) == sizeof(float)) {
    return load_floats<kLanes<Acc>>(from);
  } else {
    return widen<kLanes<Acc>>(load_floats<kLanes<Acc>>(from));
  }
}

template <class Acc>
CAMFUSE_INLINE void store(Acc* to, Vec<Acc> value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <class Acc>
CAMFUSE_INLINE Vec<Acc> splat(Acc value) {
  return Vec<Acc>{} + value;
}

// max(x, 0), but NaN stays NaN.
template <class Acc>
CAMFUSE_INLINE Vec<Acc> relu(Vec<Acc> x) {
  return x < 0 ? Vec<Acc>{} : x;
}

template <class Acc>
CAMFUSE_INLINE Vec<Acc> magnitude(Vec<Acc> x) {
  using Bits = Vector<std::conditional_t<sizeof(Acc) == 8, uint64_t, uint32_t>, kLanes<Acc>>;
  return bit_cast<Vec<Acc>>(bit_cast<Bits>(x) & (~Bits{} >> 1));
}

// `x`, with 0 in the lanes before `first`.
template <class Acc>
CAMFUSE_INLINE Vec<Acc> from_lane(Vec<Acc> x, int64_t first) {
  Vec<Acc> lane;
  for (int i = 0; i < kLanes<Acc>; ++i) lane[i] = static_cast<Acc>(i);
  return lane < static_cast<Acc>(first) ? Vec<Acc>{} : x;
}

// The lanes of a followed by those of b, of which lane i of the result is the one at from(i).
template <class V, class From>
CAMFUSE_INLINE V picked(V a, V b, From from) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
#if defined(__clang__)
  V to{};
  for (int i = 0; i < lanes; ++i) to[i] = from(i) < lanes ? a[from(i)] : b[from(i) - lanes];
  return to;
#else
  Vector<std::conditional_t<sizeof(a[0]) == 8, int64_t, int32_t>, lanes> at{};
  for (int i = 0; i < lanes; ++i) at[i] = from(i);
  return __builtin_shuffle(a, b, at);
#endif
}
// Of a followed by b: every other lane from the first, or from the second, on.
template <class V>
CAMFUSE_INLINE V evens(V a, V b) {
  return picked(a, b, [](int i) { return 2 * i; });
}
template <class V>
CAMFUSE_INLINE V odds(V a, V b) {
  return picked(a, b, [](int i) { return 2 * i + 1; });
}
// The first, or the second, half of a and b in turns.
template <class V>
CAMFUSE_INLINE V first_turns(V a, V b) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
  return picked(a, b, [](int i) { return i / 2 + i % 2 * lanes; });
}
template <class V>
CAMFUSE_INLINE V second_turns(V a, V b) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
  return picked(a, b, [](int i) { return i / 2 + i % 2 * lanes + lanes / 2; });
}

// b moved up by a lane, the last of a before it; a moved down by one, the first of b behind it.
template <class V>
CAMFUSE_INLINE V shifted_in(V a, V b) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
  return picked(a, b, [](int i) { return lanes - 1 + i; });
}
template <class V>
CAMFUSE_INLINE V shifted_out(V a, V b) {
  return picked(a, b, [](int i) { return i + 1; });
}

// The sum of all lanes, halves first.
template <class Acc>
CAMFUSE_INLINE Acc sum_lanes(Vec<Acc> x) {
  Acc lanes[kLanes<Acc>];
  store<Acc>(lanes, x);
  for (int half = kLanes<Acc> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
