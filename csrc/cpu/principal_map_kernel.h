// principal_map on the CPU: its stages, built of the sweeps in principal_map_sweeps.h. Torch-free.
//
// X is the matrix of centred terms, [positions, C]. The Lanczos method builds an orthogonal basis
// q_0, q_1, ... of what repeated multiplication by a symmetric matrix M makes of a start, in which
// M is tridiagonal. M q = sum over lines of line (line . q) reads each line once, if M = X X' where
// lines are planes and M = X' X where they are rows:
//
//              vectors along a line     map
//   planar     left, [positions]        singular value * left vector
//   rows       right, [C]               X * right vector
#pragma once

#include "cpu/principal_map_params.h"
#include "cpu/principal_map_sweeps.h"

namespace camfuse {
namespace CAMFUSE_ISA {

CAMFUSE_INLINE double as_double(double x) { return x; }
CAMFUSE_INLINE double as_double(float x) { return static_cast<double>(x); }
template <class T>
CAMFUSE_INLINE double as_double(const T& x) {
  const uint16_t repeated[4] = {x.bits, x.bits, x.bits, x.bits};
  return static_cast<double>(load_floats<4>(reinterpret_cast<const T*>(repeated))[0]);
}

template <int J>
struct LineCount {
  static constexpr int value = J;
};

// The stages that read the layer.
template <class Acc, bool rows>
struct PrincipalLines {
  const PrincipalMapParams& p;
  PrincipalMapSample& s;
  MakeTerms<Acc> make_terms;
  void* scratch;

  template <int J>
  TermLines<rows, J, Acc> lines(int64_t line) const {
    const Acc* const means = static_cast<const Acc*>(s.means) + (rows ? 0 : line);
    if (make_terms == nullptr) {
      return {lines_of<Acc>(p, s, p.a, false, line, J, nullptr), means};
    }
    make_terms(p, s, line, J, scratch);
    return {{static_cast<const Acc*>(scratch), p.length}, means};
  }

  // Calls visit(line, count) for each group of lines of a slab; `count` is a constant.
  template <class Visit>
  void for_groups(int64_t slab, const Visit& visit) const {
    int64_t i = slab * p.slab;
    const int64_t end = i + p.slab < p.lines ? i + p.slab : p.lines;
    for (; i + kGroup <= end; i += kGroup) visit(i, LineCount<kGroup>{});
    for (; i < end; ++i) visit(i, LineCount<1>{});
  }

  Acc* part(int64_t slab, int which) const {
    return static_cast<Acc*>(s.parts) + (2 * slab + which) * p.padded;
  }
  Acc* cleared_part(int64_t slab, int which) const {
    Acc* out = part(slab, which);
    for (int64_t i = 0; i < p.padded; ++i) out[i] = 0;
    return out;
  }

  void measure_slab(int64_t slab) const {
    Acc* sums = rows ? cleared_part(slab, 0) : static_cast<Acc*>(s.means);
    Vec<Acc> largest{};
    for_groups(slab, [&](int64_t line, auto count) {
      constexpr int J = decltype(count)::value;
      measure<rows, J, Acc>(lines<J>(line), p.length, rows ? sums : sums + line, largest);
      if constexpr (!rows) {
        for (int j = 0; j < J; ++j) sums[line + j] /= static_cast<Acc>(p.h * p.w);
      }
    });
    Acc lanes[kLanes<Acc>];
    store<Acc>(lanes, largest);
    double top = 0;
    for (Acc lane : lanes) top = lane > top || lane != lane ? as_double(lane) : top;
    s.slab_sums[2 * slab] = top;
  }

  void energies(int64_t slab) const {
    const Acc scale = static_cast<Acc>(s.scale);
    Acc* out = cleared_part(slab, 0);
    if constexpr (rows) {
      Acc* left = cleared_part(slab, 1);
      Acc* found = static_cast<Acc*>(s.energies);
      for_groups(slab, [&](int64_t line, auto count) {
        constexpr int J = decltype(count)::value;
        const auto x = lines<J>(line);
        sum_squares<J, Acc>(x, p.length, scale, found + line);
        Acc coefficients[J];
        for (int j = 0; j < J; ++j) coefficients[j] = found[line + j] * scale;
        add_multiples<rows, J, Acc>(x, coefficients, p.length, out);
        add_centred<rows, J, Acc>(x, p.length, left);
      });
    } else {
      for_groups(slab, [&](int64_t line, auto count) {
        constexpr int J = decltype(count)::value;
        add_squares<J, Acc>(lines<J>(line), p.length, scale, out);
      });
    }
  }

  void multiply(int64_t slab) const {
    const Acc* vector = static_cast<const Acc*>(s.basis) + s.steps * p.padded;
    const double length = s.lengths[s.steps];
    const Acc factor = static_cast<Acc>(length > 0 ? s.scale / length : 0);
    Acc* out = cleared_part(slab, 0);
    double squares = 0, sum = 0;
    for_groups(slab, [&](int64_t line, auto count) {
      constexpr int J = decltype(count)::value;
      const auto x = lines<J>(line);
      Acc coefficients[J];
      dot_lines<rows, J, Acc>(x, vector, p.length, coefficients);
      for (int j = 0; j < J; ++j) {
        coefficients[j] *= factor;
        const double exact = as_double(coefficients[j]);
        squares += exact * exact;
        sum += exact;
      }
      add_multiples<rows, J, Acc>(x, coefficients, p.length, out);
    });
    s.slab_sums[2 * slab] = squares;
    s.slab_sums[2 * slab + 1] = sum;
  }

  void project(int64_t slab) const {
    const Acc* vector = static_cast<const Acc*>(s.parts);
    Acc* map = static_cast<Acc*>(s.values);
    for_groups(slab, [&](int64_t line, auto count) {
      constexpr int J = decltype(count)::value;
      dot_lines<rows, J, Acc>(lines<J>(line), vector, p.length, map + line);
    });
  }

  void run(PrincipalMapStage stage, int64_t task) const {
    switch (stage) {
      case PrincipalMapStage::kMeasure: return measure_slab(task);
      case PrincipalMapStage::kEnergies: return energies(task);
      case PrincipalMapStage::kMultiply: return multiply(task);
      default: return project(task);
    }
  }
};

// The stages between, on vectors.
template <class Acc>
struct PrincipalVectors {
  const PrincipalMapParams& p;
  PrincipalMapSample& s;

  static constexpr int L = kLanes<Acc>;

  int64_t positions() const { return p.h * p.w; }
  Acc* basis(int64_t i) const { return static_cast<Acc*>(s.basis) + i * p.padded; }
  Acc* part(int64_t slab, int which) const {
    return static_cast<Acc*>(s.parts) + (2 * slab + which) * p.padded;
  }
  double* sums(int64_t tile) const { return s.tile_sums + tile * (kMostSteps + 2); }
  int64_t begin(int64_t tile) const { return tile * p.tile; }
  int64_t end(int64_t tile) const {
    return begin(tile) + p.tile < p.padded ? begin(tile) + p.tile : p.padded;
  }

  Vec<Acc> joined(int64_t i, int which) const {
    Vec<Acc> sum = load<Acc>(part(0, which) + i);
    for (int64_t slab = 1; slab < p.slabs; ++slab) sum += load<Acc>(part(slab, which) + i);
    return sum;
  }

  // Padding becomes 0.
  void store_vector(Acc* vector, int64_t i, Vec<Acc> x) const {
    store<Acc>(vector + i, x);
    const int64_t n = p.rows ? p.C : positions();
    for (int64_t k = i < n ? n : i; k < i + L; ++k) vector[k] = 0;
  }

  template <class T>
  void set_factors_from() const {
    const T* weights = static_cast<const T*>(p.weights.data) + s.b * p.weights.batch;
    for (int64_t c = 0; c < p.C; ++c) {
      static_cast<Acc*>(s.factors)[c] = static_cast<Acc>(as_double(weights[c * p.weights.channel]));
    }
  }
  void set_factors() const {
    switch (p.dtype) {
      case Dtype::kF64: return set_factors_from<double>();
      case Dtype::kF32: return set_factors_from<float>();
      case Dtype::kBF16: return set_factors_from<BFloat16>();
      case Dtype::kF16: return set_factors_from<Half>();
    }
  }

  void means() const {
    Acc* out = static_cast<Acc*>(s.means);
    for (int64_t c = 0; c < p.C; ++c) {
      Acc sum = part(0, 0)[c];
      for (int64_t slab = 1; slab < p.slabs; ++slab) sum += part(slab, 0)[c];
      out[c] = sum / static_cast<Acc>(positions());
    }
  }

  void gather(int64_t tile) const {
    Acc* vector = basis(p.rows ? 0 : 1);
    Vec<Acc> squares{};
    for (int64_t i = begin(tile); i < end(tile); i += L) {
      store_vector(vector, i, joined(i, 0));
      const Vec<Acc> x = load<Acc>(vector + i);
      squares += x * x;
      if (!p.rows) {
        store<Acc>(static_cast<Acc*>(s.energies) + i, x);
        store_vector(basis(0), i, splat<Acc>(1));
      } else {
        const Vec<Acc> left = joined(i, 1) / static_cast<Acc>(positions());
        for (int64_t k = i; k < i + L && k < p.C; ++k)
          static_cast<Acc*>(s.offsets)[k] = left[k - i];
      }
    }
    sums(tile)[0] = as_double(sum_lanes<Acc>(squares));
  }

  void start(int64_t tile) const {
    Acc* vector = basis(s.steps);
    const Acc amplitude = static_cast<Acc>(s.amplitude);
    for (int64_t i = begin(tile); i < end(tile); i += L) {
      Acc random[L];
      for (int k = 0; k < L; ++k) random[k] = amplitude * static_cast<Acc>(principal_noise(i + k));
      store_vector(vector, i, load<Acc>(vector + i) + load<Acc>(random));
    }
    dots(vector, s.steps + 1, tile);
  }

  // The newest product, less its parts along the two newest basis vectors, becomes the next.
  void next(int64_t tile) const {
    const Acc* newest = basis(s.steps);
    const bool has_before = s.weights[1] != 0;
    const Acc* before = has_before ? basis(s.steps - 1) : newest;
    const Acc along = static_cast<Acc>(s.weights[0]), along_before = static_cast<Acc>(s.weights[1]);
    const Acc scale = static_cast<Acc>(s.scale), sum = static_cast<Acc>(s.coefficient_sum);
    Acc* vector = basis(s.steps + 1);
    for (int64_t i = begin(tile); i < end(tile); i += L) {
      Vec<Acc> x = joined(i, 0);
      if (p.rows) {
        Acc left[L];
        for (int k = 0; k < L; ++k) {
          left[k] = i + k < p.C ? static_cast<const Acc*>(s.offsets)[i + k] : 0;
        }
        x -= load<Acc>(left) * sum;
      }
      x = x * scale - load<Acc>(newest + i) * along;
      if (has_before) x -= load<Acc>(before + i) * along_before;
      store_vector(vector, i, x);
    }
    dots(vector, s.steps + 2, tile);
  }

  // Dots of a tile of `vector` with `count` basis vectors, itself the last.
  void dots(const Acc* vector, int64_t count, int64_t tile) const {
    double* out = sums(tile);
    int64_t k = 0;
    const auto several = [&](auto group) {
      constexpr int J = decltype(group)::value;
      Vec<Acc> totals[J] = {};
      for (int64_t i = begin(tile); i < end(tile); i += L) {
        const Vec<Acc> x = load<Acc>(vector + i);
        for (int j = 0; j < J; ++j) totals[j] += load<Acc>(basis(k + j) + i) * x;
      }
      for (int j = 0; j < J; ++j) out[k + j] = as_double(sum_lanes<Acc>(totals[j]));
    };
    for (; k + 4 <= count; k += 4) several(LineCount<4>{});
    for (; k < count; ++k) several(LineCount<1>{});
  }

  // vector + sum_k weights[k] * basis_k, for a tile; 0 instead of `vector` if there is none.
  template <class Visit>
  void add_basis(const Acc* vector, int64_t count, int64_t tile, const Visit& visit) const {
    for (int64_t i = begin(tile); i < end(tile); i += L) {
      Vec<Acc> x = vector == nullptr ? Vec<Acc>{} : load<Acc>(vector + i);
      for (int64_t k = 0; k < count; ++k) {
        x += load<Acc>(basis(k) + i) * static_cast<Acc>(s.weights[k]);
      }
      visit(i, x);
    }
  }

  void orthogonal(int64_t tile) const {
    Acc* vector = basis(s.steps);
    Vec<Acc> squares{};
    add_basis(vector, s.steps, tile, [&](int64_t i, Vec<Acc> x) {
      store_vector(vector, i, x);
      x = load<Acc>(vector + i);
      squares += x * x;
    });
    sums(tile)[0] = as_double(sum_lanes<Acc>(squares));
  }

  void combine(int64_t tile) const {
    Acc* out = static_cast<Acc*>(p.rows ? s.parts : s.values);
    add_basis(nullptr, s.steps + 1, tile, [&](int64_t i, Vec<Acc> x) { store<Acc>(out + i, x); });
  }

  // The mean of x over the positions.
  Acc mean(const Acc* x) const {
    Vec<Acc> sums{};
    int64_t i = 0;
    for (; i + L <= positions(); i += L) sums += load<Acc>(x + i);
    Acc sum = sum_lanes<Acc>(sums);
    for (; i < positions(); ++i) sum += x[i];
    return sum / static_cast<Acc>(positions());
  }

  void finish() const {
    const Acc* energies = static_cast<const Acc*>(s.energies);
    const Acc* values = static_cast<const Acc*>(s.values);
    Acc* __restrict map = static_cast<Acc*>(p.maps) + s.b * positions();
    const Acc middle = mean(values), energy = mean(energies);
    Vec<Acc> products{}, tops{};
    int64_t i = 0;
    for (; i + L <= positions(); i += L) {
      const Vec<Acc> x = load<Acc>(energies + i);
      products += (load<Acc>(values + i) - middle) * (x - energy);
      tops = x > tops ? x : tops;
    }
    Acc agreement = sum_lanes<Acc>(products), most = 0;
    for (int k = 0; k < L; ++k) most = tops[k] > most ? tops[k] : most;
    for (; i < positions(); ++i) {
      agreement += (values[i] - middle) * (energies[i] - energy);
      most = energies[i] > most ? energies[i] : most;
    }
    const Acc sign = agreement < 0 ? -1 : 1;
    for (i = 0; i < positions(); ++i) map[i] = (values[i] - middle) * sign;
    find_extremes(map, positions(), static_cast<Acc*>(p.ranges) + 2 * s.b);
    static_cast<Acc*>(p.scales)[s.b] = static_cast<Acc>(__builtin_sqrt(as_double(most)) / s.scale);
  }

  void not_finite() const {
    const Acc nan = static_cast<Acc>(__builtin_nan(""));
    Acc* map = static_cast<Acc*>(p.maps) + s.b * positions();
    for (int64_t i = 0; i < positions(); ++i) map[i] = nan;
    Acc* range = static_cast<Acc*>(p.ranges) + 2 * s.b;
    range[0] = range[1] = static_cast<Acc*>(p.scales)[s.b] = nan;
  }

  void run(PrincipalMapStage stage, int64_t task) const {
    switch (stage) {
      case PrincipalMapStage::kFactors: return set_factors();
      case PrincipalMapStage::kMeans: return means();
      case PrincipalMapStage::kGather: return gather(task);
      case PrincipalMapStage::kStart: return start(task);
      case PrincipalMapStage::kNext: return next(task);
      case PrincipalMapStage::kDots: return dots(basis(s.steps), s.steps + 1, task);
      case PrincipalMapStage::kOrthogonal: return orthogonal(task);
      case PrincipalMapStage::kCombine: return combine(task);
      case PrincipalMapStage::kFinish: return finish();
      default: return not_finite();
    }
  }
};

// Runs the tasks [begin, end) of a stage. `scratch` is as large as the parameters say, for stages
// that read lines.
void run_principal_map(PrincipalMapStage stage, const PrincipalMapParams& p, PrincipalMapSample& s,
                       int64_t begin, int64_t end, void* scratch) {
  const auto run = [&](const auto& kernel) {
    for (int64_t task = begin; task < end; ++task) kernel.run(stage, task);
  };
  const auto with = [&](auto acc) {
    using Acc = decltype(acc);
    if (!reads_lines(stage)) return run(PrincipalVectors<Acc>{p, s});
    if (p.rows) return run(PrincipalLines<Acc, true>{p, s, maker_of<Acc>(p), scratch});
    return run(PrincipalLines<Acc, false>{p, s, maker_of<Acc>(p), scratch});
  };
  if (p.dtype == Dtype::kF64) return with(double{});
  return with(float{});
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
