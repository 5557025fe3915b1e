// layer_cam on the CPU: its stages, built of the sweeps in line_sweeps.h. Torch-free.
//
// Both memory layouts are the same two sweeps over groups of kGroup contiguous lines, with their
// roles exchanged. A line is the plane of a channel (planar) or the channels of a position (rows):
//
//              across a line (sum_lines)         over lines (add_lines)
//   planar     plane sums                        map
//   rows       map                               plane sums
#pragma once

#include "cpu/layer_cam_params.h"
#include "cpu/line_sweeps.h"

namespace camfuse {
namespace CAMFUSE_ISA {

// Calls visit with the cheapest term that is right for gradcam++'s channel weights. `largest` maps
// zeros to the largest |G| per lane.
template <class T, class Largest, class Visit>
CAMFUSE_INLINE void visit_alpha(const Largest& largest, const double* sums, int64_t count,
                                const Visit& visit) {
  if constexpr (sizeof(T) < sizeof(double)) {
    if (alpha_fits_f32(largest(Vec<float>{}), sums, count))
      return visit(Terms<Term::kAlphaInRange>{});
  }
  visit(Terms<Term::kAlpha>{});
}

// Calls visit with the terms of the first of `count` rules and of those after it that share its
// sweep, and returns how many rules these are.
template <class Visit>
CAMFUSE_INLINE int64_t visit_terms(const Rule* rules, int64_t count, const Visit& visit) {
  const Rule rule = rules[0];
  const bool pair = count > 1 && rules[1] != rule && base_of(rules[1]) == rule;
  switch (rule) {
    case Rule::kHiResCam:
      if (pair) return visit(Terms<Term::kProduct, Term::kProductMagnitude>{}), 2;
      return visit(Terms<Term::kProduct>{}), 1;
    case Rule::kHiResCamMagnitude: return visit(Terms<Term::kProductMagnitude>{}), 1;
    case Rule::kElementwise: return visit(Terms<Term::kPositiveProduct>{}), 1;
    case Rule::kLayerCam: return visit(Terms<Term::kPositiveGradient>{}), 1;
    default:
      if (pair) return visit(Terms<Term::kScaled, Term::kScaledMagnitude>{}), 2;
      if (rule == base_of(rule)) return visit(Terms<Term::kScaled>{}), 1;
      return visit(Terms<Term::kScaledMagnitude>{}), 1;
  }
}

CAMFUSE_INLINE double to_double(double x) { return x; }
CAMFUSE_INLINE double to_double(float x) { return static_cast<double>(x); }
template <class T>
CAMFUSE_INLINE double to_double(const T& x) {
  const uint16_t repeated[4] = {x.bits, x.bits, x.bits, x.bits};
  return static_cast<double>(load_floats<4>(reinterpret_cast<const T*>(repeated))[0]);
}

// The stages for inputs of type T.
template <class T, class Acc>
struct LayerCam {
  const LayerCamParams& p;

  int64_t positions() const { return p.h * p.w; }
  bool needs(PlaneSum which) const { return p.sum_slot[which] >= 0; }

  // Calls visit with the plane sums to take that need no other, in the order of PlaneSum.
  template <class Visit>
  void visit_plain_sums(const Visit& visit) const {
    if (needs(kSumG) && needs(kSumGA)) {
      visit(Terms<Term::kY, Term::kX, Term::kProduct>{});
    } else if (needs(kSumG) && needs(kSumA)) {
      visit(Terms<Term::kY, Term::kX>{});
    } else if (needs(kSumGA)) {
      visit(Terms<Term::kX, Term::kProduct>{});
    } else if (needs(kSumA)) {
      visit(Terms<Term::kX>{});
    } else if (needs(kSumG)) {
      visit(Terms<Term::kY>{});
    }
  }

  Acc given_weight(int64_t b, int64_t c) const {
    const T* weights = static_cast<const T*>(p.weights.data);
    return static_cast<Acc>(to_double(weights[b * p.weights.batch + c * p.weights.channel]));
  }

  // ---- planar: a line is a plane

  // J planes from channel c on, copied to `scratch` [J, plane] if they do not lie in lines.
  template <int J>
  Lines<T> planes(const LayerView& view, bool packs, int64_t b, int64_t c, T* scratch) const {
    const T* from = static_cast<const T*>(view.data) + b * view.batch + c * view.channel;
    if (!packs) return group_of_lines(from, view.channel);
    return pack_planes(from, view, p.h, p.w, p.plane, J, scratch);
  }

  // Adds the maps of J channels to `out` [R, plane].
  template <int J>
  void add_planes(int64_t b, int64_t c, Acc* out, T* scratch) const {
    const Lines<T> a = planes<J>(p.a, p.packs_a, b, c, scratch);
    Lines<T> g{};
    if (p.g.data != nullptr) g = planes<J>(p.g, p.packs_g, b, c, scratch + kGroup * p.plane);

    double sums[kPlaneSumCount][J];  // by slot
    visit_plain_sums([&](auto terms) {
      sum_lines<false, J, double>(terms, a, g, nullptr, p.plane, sums[0], J);
    });
    const auto sum_of = [&](PlaneSum which) { return sums[needs(which) ? p.sum_slot[which] : 0]; };
    if (needs(kSumAlpha)) {
      const auto largest = [&](auto none) { return find_largest<J>(g, p.plane, none); };
      visit_alpha<T>(largest, sum_of(kSumA), J, [&](auto term) {
        sum_lines<false, J, double>(term, g, g, sum_of(kSumA), p.plane, sum_of(kSumAlpha), J);
      });
    }
    Acc weights[kRuleCount][J];
    for (int j = 0; j < J; ++j) {
      const auto set = [&](Rule rule, auto weight) {
        if (uses(p, rule)) weights[static_cast<int>(rule)][j] = static_cast<Acc>(weight());
      };
      set(Rule::kGradCam, [&] { return sum_of(kSumG)[j] / static_cast<double>(positions()); });
      set(Rule::kXGradCam,
          [&] { return sum_of(kSumGA)[j] / (sum_of(kSumA)[j] + kXGradCamEpsilon); });
      set(Rule::kGradCamPlusPlus, [&] { return sum_of(kSumAlpha)[j]; });
      set(Rule::kWeighted, [&] { return given_weight(b, c + j); });
    }

    // Several rules share a stretch of the planes while it lies in the first-level cache.
    constexpr int64_t kStretch = 512;
    for (int64_t i = 0; i < p.plane;) {
      const int64_t n = p.plane - i < 2 * kStretch ? p.plane - i : kStretch;
      for (int64_t r = 0; r < p.R;) {
        const Acc* factors = weights[static_cast<int>(base_of(p.rules[r]))];
        Acc* map = out + r * p.plane + i;
        r += visit_terms(p.rules + r, p.R - r, [&](auto terms) {
          add_lines<false, J, Acc>(terms, Lines<T>{a.data + i, a.stride, a.ahead},
                                   Lines<T>{g.data + i, g.stride, g.ahead}, factors, n, map,
                                   p.plane);
        });
      }
      i += n;
    }
  }

  // The slabs that one thread does in a row. Those from a sample's first on it adds up at once, in
  // the order that planar_combine would: then few partial maps go through memory.
  void planar_slabs(int64_t begin, int64_t end, T* scratch) const {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / p.slabs, slab = task % p.slabs;
      const bool joins = slab > 0 && task - slab >= begin;
      planar_slab(b, slab, part(b, joins ? 1 : slab), scratch);
      if (joins) add_to(part(b, 0), part(b, 1), p.R * p.plane);
      if (joins || slab == 0) p.joined[b] = slab + 1;
    }
  }

  Acc* part(int64_t b, int64_t slab) const {
    return static_cast<Acc*>(p.parts) + (b * p.slabs + slab) * p.R * p.plane;
  }

  static void add_to(Acc* __restrict sum, const Acc* __restrict x, int64_t n) {
    int64_t i = 0;
    for (; i + kLanes<Acc> <= n; i += kLanes<Acc>) {
      store<Acc>(sum + i, load<Acc>(sum + i) + load<Acc>(x + i));
    }
    for (; i < n; ++i) sum[i] += x[i];
  }

  void planar_slab(int64_t b, int64_t slab, Acc* out, T* scratch) const {
    for (int64_t i = 0; i < p.R * p.plane; ++i) out[i] = 0;
    int64_t c = slab * p.slab;
    const int64_t end = c + p.slab < p.C ? c + p.slab : p.C;
    for (; c + kGroup <= end; c += kGroup) add_planes<kGroup>(b, c, out, scratch);
    for (; c < end; ++c) add_planes<1>(b, c, out, scratch);
  }

  void planar_combine(int64_t r, int64_t b, int64_t tile) const {
    const int64_t begin = tile * p.tile;
    const int64_t n = begin + p.tile < positions() ? p.tile : positions() - begin;
    const Acc* first = part(b, 0) + r * p.plane + begin;
    Acc* __restrict map = static_cast<Acc*>(p.maps) + (r * p.B + b) * positions() + begin;
    const int64_t stride = p.R * p.plane;
    const auto total = [&](int64_t i, auto load_at) {
      auto sum = load_at(first + i);
      for (int64_t slab = p.joined[b]; slab < p.slabs; ++slab) {
        sum += load_at(first + slab * stride + i);
      }
      return sum;
    };
    int64_t i = 0;
    for (; i + kLanes<Acc> <= n; i += kLanes<Acc>) {
      store<Acc>(map + i, total(i, [](const Acc* at) { return load<Acc>(at); }));
    }
    for (; i < n; ++i) map[i] = total(i, [](const Acc* at) { return *at; });
    find_extremes(map, n, extremes(r, b, tile));
  }

  Acc* extremes(int64_t r, int64_t b, int64_t tile) const {
    return static_cast<Acc*>(p.extremes) + ((r * p.B + b) * p.tiles + tile) * 2;
  }

  // ---- rows: a line is the channels of a position

  Lines<T> rows(const LayerView& view, int64_t b, int64_t position) const {
    const T* from = static_cast<const T*>(view.data) + b * view.batch + position * view.column;
    return group_of_lines(from, view.column);
  }

  double* sums(int64_t b, int64_t slab, int64_t slot) const {
    return p.sums + ((b * p.slabs + slab) * p.sum_count + slot) * p.C;
  }
  // Calls visit(position, count) for each group of positions of a slab; `count` is a constant.
  template <class Visit>
  void for_groups(int64_t slab, const Visit& visit) const {
    int64_t i = slab * p.slab;
    const int64_t end = i + p.slab < positions() ? i + p.slab : positions();
    for (; i + kGroup <= end; i += kGroup) visit(i, Count<kGroup>{});
    for (; i < end; ++i) visit(i, Count<1>{});
  }
  template <int J>
  struct Count {
    static constexpr int value = J;
  };

  void row_sums(int64_t b, int64_t slab) const {
    visit_plain_sums([&](auto terms) {
      double* out = sums(b, slab, 0);
      for (int64_t i = 0; i < terms.kCount * p.C; ++i) out[i] = 0;
      for_groups(slab, [&](int64_t i, auto count) {
        constexpr int J = decltype(count)::value;
        add_lines<true, J, double>(terms, rows(p.a, b, i), rows(p.g, b, i), nullptr, p.C, out, p.C);
      });
    });
  }

  void row_alpha_sums(int64_t b, int64_t slab) const {
    const double* sum_a = sums(b, 0, p.sum_slot[kSumA]);
    double* out = sums(b, slab, p.sum_slot[kSumAlpha]);
    for (int64_t c = 0; c < p.C; ++c) out[c] = 0;
    const auto largest = [&](auto found) {
      for_groups(slab, [&](int64_t i, auto count) {
        found = find_largest<decltype(count)::value>(rows(p.g, b, i), p.C, found);
      });
      return found;
    };
    visit_alpha<T>(largest, sum_a, p.C, [&](auto term) {
      for_groups(slab, [&](int64_t i, auto count) {
        constexpr int J = decltype(count)::value;
        const Lines<T> g = rows(p.g, b, i);
        add_lines<true, J, double>(term, g, g, sum_a, p.C, out, p.C);
      });
    });
  }

  void row_totals(int64_t b, int64_t chunk, bool alpha) const {
    const int64_t begin = chunk * kChannelChunk;
    const int64_t end = begin + kChannelChunk < p.C ? begin + kChannelChunk : p.C;
    // The sum over all slabs, left in slab 0.
    for (int64_t slot = 0; slot < p.sum_count; ++slot) {
      if ((slot == p.sum_slot[kSumAlpha]) != alpha) continue;
      double* __restrict out = sums(b, 0, slot);
      for (int64_t slab = 1; slab < p.slabs; ++slab) {
        const double* part = sums(b, slab, slot);
        for (int64_t c = begin; c < end; ++c) out[c] += part[c];
      }
    }
    for (int64_t r = 0; r < p.R; ++r) {
      if ((base_of(p.rules[r]) == Rule::kGradCamPlusPlus) == alpha)
        set_row_weights(b, r, begin, end);
    }
  }

  void set_row_weights(int64_t b, int64_t r, int64_t begin, int64_t end) const {
    Acc* __restrict out = row_weights(b, r);
    const auto set = [&](auto weight) {
      for (int64_t c = begin; c < end; ++c) out[c] = static_cast<Acc>(weight(c));
    };
    switch (base_of(p.rules[r])) {
      case Rule::kGradCam: {
        const double* g = sums(b, 0, p.sum_slot[kSumG]);
        return set([&](int64_t c) { return g[c] / static_cast<double>(positions()); });
      }
      case Rule::kXGradCam: {
        const double *ga = sums(b, 0, p.sum_slot[kSumGA]), *a = sums(b, 0, p.sum_slot[kSumA]);
        return set([&](int64_t c) { return ga[c] / (a[c] + kXGradCamEpsilon); });
      }
      case Rule::kGradCamPlusPlus: {
        const double* alpha = sums(b, 0, p.sum_slot[kSumAlpha]);
        return set([&](int64_t c) { return alpha[c]; });
      }
      case Rule::kWeighted: return set([&](int64_t c) { return given_weight(b, c); });
      default: return;
    }
  }

  Acc* row_weights(int64_t b, int64_t r) const {
    return static_cast<Acc*>(p.channel_weights) + (b * p.R + r) * p.C;
  }

  void row_maps(int64_t b, int64_t slab) const {
    for_groups(slab, [&](int64_t i, auto count) {
      constexpr int J = decltype(count)::value;
      for (int64_t r = 0; r < p.R;) {
        const Acc* factors = row_weights(b, r);
        Acc* map = static_cast<Acc*>(p.maps) + (r * p.B + b) * positions() + i;
        r += visit_terms(p.rules + r, p.R - r, [&](auto terms) {
          sum_lines<true, J, Acc>(terms, rows(p.a, b, i), rows(p.g, b, i), factors, p.C, map,
                                  p.B * positions());
        });
      }
    });
    const int64_t begin = slab * p.slab;
    const int64_t n = begin + p.slab < positions() ? p.slab : positions() - begin;
    for (int64_t r = 0; r < p.R; ++r) {
      const Acc* map = static_cast<const Acc*>(p.maps) + (r * p.B + b) * positions() + begin;
      find_extremes(map, n, extremes(r, b, slab));
    }
  }

  // ---- either

  void range(int64_t r, int64_t b) const {
    const Acc* tile = extremes(r, b, 0);
    Acc low = tile[0], high = tile[1];
    for (int64_t t = 1; t < p.tiles; ++t) {
      const Acc* next = tile + 2 * t;
      if (next[0] < low || next[0] != next[0]) low = next[0];
      if (next[1] > high || next[1] != next[1]) high = next[1];
    }
    Acc* out = static_cast<Acc*>(p.ranges) + (r * p.B + b) * 2;
    out[0] = low;
    out[1] = high;
  }

  void run(LayerCamStage stage, int64_t begin, int64_t end, void* scratch) const {
    if (stage == LayerCamStage::kPlanarSlabs) {
      return planar_slabs(begin, end, static_cast<T*>(scratch));
    }
    for (int64_t task = begin; task < end; ++task) run_task(stage, task);
  }

  void run_task(LayerCamStage stage, int64_t task) const {
    const int64_t slab_b = task / p.slabs, slab = task % p.slabs;
    const int64_t chunks = (p.C + kChannelChunk - 1) / kChannelChunk;
    switch (stage) {
      case LayerCamStage::kPlanarSlabs: return;  // not one by one
      case LayerCamStage::kPlanarCombine:
        return planar_combine(task / p.tiles / p.B, task / p.tiles % p.B, task % p.tiles);
      case LayerCamStage::kRowSums: return row_sums(slab_b, slab);
      case LayerCamStage::kRowTotals: return row_totals(task / chunks, task % chunks, false);
      case LayerCamStage::kRowAlphaSums: return row_alpha_sums(slab_b, slab);
      case LayerCamStage::kRowAlphaTotals: return row_totals(task / chunks, task % chunks, true);
      case LayerCamStage::kRowMaps: return row_maps(slab_b, slab);
      case LayerCamStage::kRanges: return range(task / p.B, task % p.B);
    }
  }
};

// Runs the tasks [begin, end) of a stage. `scratch` holds 2 * kGroup * plane elements of the input
// type if a view is packed.
void run_layer_cam(LayerCamStage stage, const LayerCamParams& p, int64_t begin, int64_t end,
                   void* scratch) {
  const auto run = [&](const auto& kernel) { kernel.run(stage, begin, end, scratch); };
  switch (p.dtype) {
    case Dtype::kF64: return run(LayerCam<double, double>{p});
    case Dtype::kF32: return run(LayerCam<float, float>{p});
    case Dtype::kBF16: return run(LayerCam<BFloat16, float>{p});
    case Dtype::kF16: return run(LayerCam<Half, float>{p});
  }
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
