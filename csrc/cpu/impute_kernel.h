// impute on the CPU: multigrid-preconditioned conjugate gradients, one channel of one mask at a
// time, in memory that fits a core's cache. common/impute_args.h says what is computed. Torch-free.
#pragma once

#include "cpu/impute_grids.h"
#include "cpu/impute_params.h"

namespace camfuse {
namespace CAMFUSE_ISA {

// The channels of one mask, one after another.
template <class T>
class Imputation {
 public:
  Imputation(const ImputeParams& p, const ImputeWork& work, int64_t n)
      : p_(p), work_(work), grid_(p.grids[0]), n_(n) {}

  // How the masked pixels relate to each other is the same for all channels.
  void set_up() {
    removed_ = 0;
    const Plane<float> inverse(grid_, work_.inverse), springs(grid_, work_.residual);
    const LayerView& view = p_.masks;
    for (int64_t y = 0; y < grid_.h; ++y) {
      const auto* mask =
          static_cast<const unsigned char*>(view.data) + n_ * view.batch + y * view.row;
      float *d = inverse.row(y), *spring = springs.row(y);
      const float v = static_cast<float>(line_weight(y, grid_.h));
      for (int64_t x = 0; x < grid_.w; ++x) {
        const float is_removed = mask[x * view.column] ? 1.0f : 0.0f;
        d[x] = is_removed;
        removed_ += static_cast<int64_t>(is_removed);
      }
      each<float>(grid_.w, [&](int64_t x) {
        const Vec<float> one = at(d, x), columns = at(work_.columns, x);
        const Vec<float> diagonal = v * columns - 4;
        store<float>(d + x, removed(1 / diagonal, one));
        const Vec<float> kept = columns != 0 ? splat(1 / kSeriesResistance) : Vec<float>{};
        store<float>(spring + x, one != 0 ? Vec<float>{} : kept);
      });
    }
    if (removed_ == 0 || is_whole()) return;
    for (int k = 0; k + 1 < p_.grid_count; ++k) set_up_coarser(p_.grids[k], p_.grids[k + 1], work_);
  }

  // Returns the residual.
  double run(int64_t c) {
    Range range = read(c);
    double residual = 0;
    if (is_whole()) {
      range = {0, 0};
    } else if (!(range.size - range.size == 0)) {  // not finite: neither is the solution
      range.middle = range.size - range.size;
    } else if (range.size > 0 && removed_ > 0) {
      normalize(range);
      residual = solve();
    }
    finish(c, range);
    return residual;
  }

 private:
  struct Range {
    double middle, size;
  };

  bool is_whole() const { return removed_ == grid_.h * grid_.w; }

  // Row y of a channel, in f64, followed by zeros.
  double* wide_row(int64_t c, int64_t y) const {
    const LayerView& view = p_.image;
    const T* from = static_cast<const T*>(view.data) + c * view.channel + y * view.row;
    double* to = work_.wide_line + kPlaneHalo;
    if (view.column == 1) {
      for (int64_t x = 0; x < grid_.w; ++x) to[x] = static_cast<double>(from[x]);
    } else {
      for (int64_t x = 0; x < grid_.w; ++x) to[x] = static_cast<double>(from[x * view.column]);
    }
    for (int64_t x = grid_.w; x < grid_.stride - kPlaneHalo; ++x) to[x] = 0;
    return to;
  }

  // The kept pixels, 0 between them. A size that is not finite stands for pixels that are not.
  Range read(int64_t c) const {
    const Plane<double> values(grid_, work_.values);
    const Plane<float> inverse(grid_, work_.inverse);
    constexpr double infinity = __builtin_inf();
    Vec<double> low = splat(infinity), high = splat(-infinity), broken{};
    for (int64_t y = 0; y < grid_.h; ++y) {
      const double* from = wide_row(c, y);
      const float* d = inverse.row(y);
      double* to = values.row(y);
      each<double>(grid_.w, [&](int64_t x) {
        const auto is_removed = load<double>(d + x) != 0;
        const Vec<double> value = is_removed ? Vec<double>{} : at(from, x);
        const auto is_kept = is_removed == 0 && at(work_.wide_columns, x) != 0;
        low = is_kept && value < low ? value : low;
        high = is_kept && value > high ? value : high;
        broken += value - value;
        store<double>(to + x, value);
      });
    }
    for (int i = 1; i < kLanes<double>; ++i) {
      low[0] = low[i] < low[0] ? low[i] : low[0];
      high[0] = high[i] > high[0] ? high[i] : high[0];
    }
    return {low[0] / 2 + high[0] / 2, high[0] - low[0] + sum_lanes<double>(broken)};
  }

  void normalize(const Range& range) const {
    const Plane<double> values(grid_, work_.values);
    const Plane<float> inverse(grid_, work_.inverse);
    for (int64_t y = 0; y < grid_.h; ++y) {
      const float* d = inverse.row(y);
      double* to = values.row(y);
      each<double>(grid_.w, [&](int64_t x) {
        const auto is_kept = load<double>(d + x) == 0 && at(work_.wide_columns, x) != 0;
        const Vec<double> value = (at(to, x) - range.middle) / range.size;
        store<double>(to + x, is_kept ? value : Vec<double>{});
      });
    }
  }

  // Corrects `values` until they are good enough; returns how good.
  double solve() const {
    zero(work_.correction, p_.plane);
    return with_sweep(grid_, [this](const auto& sweep) {
      for (int round = 0;; ++round) {
        double square = restart(sweep, p_, work_);
        const double first = error(square);
        if (!(first > p_.tolerance) || round == kMostImputeRounds) return first;
        const double enough = larger(kRoundSlack * p_.tolerance, kRoundGain * first);
        double keep = 0;  // of the last direction
        for (int step = 0; step < kMostImputeSteps; ++step) {
          const double energy = multiply_direction(grid_, work_, static_cast<float>(keep));
          if (!(energy > 0)) break;
          const double before = square;
          square = advance(sweep, p_, work_, static_cast<float>(before / energy));
          if (!(error(square) > enough)) break;
          keep = square / before;
        }
        take_correction(grid_, work_);
      }
    });
  }

  static double error(double square) { return __builtin_sqrt(square > 0 ? square / 12 : square); }
  static double larger(double a, double b) { return a > b ? a : b; }

  void finish(int64_t c, const Range& range) const {
    const Plane<double> values(grid_, work_.values);
    const Plane<float> inverse(grid_, work_.inverse);
    T* to = static_cast<T*>(p_.images) + (n_ * p_.C + c) * grid_.h * grid_.w;
    for (int64_t y = 0; y < grid_.h; ++y, to += grid_.w) {
      double* line = wide_row(c, y);
      const double* from = values.row(y);
      const float* d = inverse.row(y);
      each<double>(grid_.w, [&](int64_t x) {
        const Vec<double> value = range.middle + range.size * at(from, x);
        store<double>(line + x, load<double>(d + x) != 0 ? value : at(line, x));
      });
      for (int64_t x = 0; x < grid_.w; ++x) to[x] = static_cast<T>(line[x]);
    }
  }

  const ImputeParams& p_;
  const ImputeWork& work_;
  const ImputeGrid& grid_;
  int64_t n_;
  int64_t removed_ = 0;
};

template <class T>
double impute_channels(const ImputeParams& p, const ImputeWork& work, int64_t n, int64_t begin,
                       int64_t end) {
  Imputation<T> imputation(p, work, n);
  imputation.set_up();
  double residual = 0;
  for (int64_t c = begin; c < end; ++c) {
    const double one = imputation.run(c);
    residual = one <= residual ? residual : one;  // NaN stays
  }
  return residual;
}

double run_impute(const ImputeParams& p, const ImputeWork& work, int64_t n, int64_t begin,
                  int64_t end) {
  return p.dtype == Dtype::kF64 ? impute_channels<double>(p, work, n, begin, end)
                                : impute_channels<float>(p, work, n, begin, end);
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
