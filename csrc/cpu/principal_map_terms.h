// How principal_map reads a layer: its terms, a few lines at a time, in the type that sums are in.
// What comes after knows neither input types nor kinds of terms. Torch-free.
#pragma once

#include "common/enums.h"
#include "cpu/line_sweeps.h"
#include "cpu/principal_map_params.h"

namespace camfuse {
namespace CAMFUSE_ISA {

// Calls visit(i, only) for each vector of n elements, n at least a vector. The last one may overlap
// that before; only(x) is x without the lanes that were visited already.
template <class Acc, class Visit>
CAMFUSE_INLINE void for_vectors(int64_t n, const Visit& visit) {
  constexpr int L = kLanes<Acc>;
  int64_t i = 0;
  for (; i + L <= n; i += L) visit(i, [](Vec<Acc> x) { return x; });
  if (i < n) {
    const int64_t last = n - L;
    visit(last, [&](Vec<Acc> x) { return from_lane<Acc>(x, i - last); });
  }
}

// `count` lines from `line` on. Planes that are not contiguous, or too short, are packed.
template <class T>
Lines<T> lines_of(const PrincipalMapParams& p, const PrincipalMapSample& s, const LayerView& view,
                  bool packs, int64_t line, int count, T* packed) {
  const T* from = static_cast<const T*>(view.data) + s.b * view.batch;
  if (p.rows) return group_of_lines(from + line * view.column, view.column);
  from += line * view.channel;
  if (!packs) return group_of_lines(from, view.channel);
  return pack_planes(from, view, p.h, p.w, p.length, count, packed);
}

// Makes the terms of `count` lines from `line` on, [count, length], at the head of `scratch`, which
// is laid out as PrincipalMapParams says.
template <class Acc>
using MakeTerms = void (*)(const PrincipalMapParams&, const PrincipalMapSample&, int64_t line,
                           int count, void* scratch);

template <class T, class Acc, Term term>
void make_terms(const PrincipalMapParams& p, const PrincipalMapSample& s, int64_t line, int count,
                void* scratch) {
  Acc* const terms = static_cast<Acc*>(scratch);
  T* const packed = reinterpret_cast<T*>(terms + kGroup * p.length);
  const Lines<T> a = lines_of(p, s, p.a, p.packs_a, line, count, packed);
  Lines<T> g{};
  if constexpr (has_y(term)) {
    g = lines_of(p, s, p.g, p.packs_g, line, count, packed + kGroup * p.length);
  }
  const Acc* const factors = static_cast<const Acc*>(s.factors);
  for (int j = 0; j < count; ++j) {
    Acc* const out = terms + j * p.length;
    for_vectors<Acc>(p.length, [&](int64_t i, auto) __attribute__((always_inline)) {
      Vec<Acc> factor{}, g_value{};
      if constexpr (has_factor(term)) {
        factor = p.rows ? load<Acc>(factors + i) : splat<Acc>(factors[line + j]);
      }
      if constexpr (has_y(term)) g_value = stream<Acc>(g, j, i);
      store<Acc>(out + i, evaluate<term, Acc>(stream<Acc>(a, j, i), g_value, factor));
    });
  }
}

template <class T, class Acc>
MakeTerms<Acc> maker_of(camfuse::Terms terms) {
  switch (terms) {
    case camfuse::Terms::kActivation: return make_terms<T, Acc, Term::kX>;
    case camfuse::Terms::kProduct: return make_terms<T, Acc, Term::kProduct>;
    case camfuse::Terms::kPositiveProduct: return make_terms<T, Acc, Term::kPositiveProduct>;
    case camfuse::Terms::kPositiveGradient: return make_terms<T, Acc, Term::kPositiveGradient>;
    case camfuse::Terms::kGradientMagnitude: return make_terms<T, Acc, Term::kMagnitudeOfY>;
    default: return make_terms<T, Acc, Term::kScaled>;
  }
}

// What the parameters ask for; none if terms are read where they lie.
template <class Acc>
MakeTerms<Acc> maker_of(const PrincipalMapParams& p) {
  if (p.in_place) return nullptr;
  if constexpr (sizeof(Acc) == 8) {
    return maker_of<double, Acc>(p.terms);
  } else {
    switch (p.dtype) {
      case Dtype::kBF16: return maker_of<BFloat16, Acc>(p.terms);
      case Dtype::kF16: return maker_of<Half, Acc>(p.terms);
      default: return maker_of<float, Acc>(p.terms);
    }
  }
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
