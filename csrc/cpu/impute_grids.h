// The sweeps over grids that impute is made of; see [the preconditioner] in common/impute_args.h.
//
// Every row is read while the rows around it are near, and whatever can be done with it is done at
// once. Rows have zeros on either side, so that the stencil needs no case for borders; they are
// read and written in whole vectors.
#pragma once

#include <stdint.h>

#include "cpu/impute_params.h"
#include "cpu/simd.h"

namespace camfuse {
namespace CAMFUSE_ISA {

template <class Acc>
struct Plane {
  Plane(const ImputeGrid& grid, Acc* planes) : at(planes + grid.origin), stride(grid.stride) {}
  CAMFUSE_INLINE Acc* row(int64_t y) const { return at + y * stride; }

  Acc* at;
  int64_t stride;
};

template <class Acc>
inline void zero(Acc* values, int64_t count) {
  __builtin_memset(values, 0, static_cast<unsigned long>(count) * sizeof(Acc));
}

// The lines of scratch memory, with zeros on either side.
inline float* line(const ImputeWork& work, const ImputeGrid& image, int i) {
  return work.lines + i * image.stride + kPlaneHalo;
}

template <class Acc>
CAMFUSE_INLINE Vec<Acc> at(const Acc* row, int64_t x) {
  return load<Acc>(row + x);
}

// Calls use(x) for the place of every vector of a row.
template <class Acc, class Use>
CAMFUSE_INLINE void each(int64_t w, const Use& use) {
  for (int64_t x = 0; x < w; x += kLanes<Acc>) use(x);
}

// `x` where a cell is removed, which is where its inverse is not 0; else 0.
CAMFUSE_INLINE Vec<float> removed(Vec<float> x, Vec<float> inverse) {
  return inverse != 0 ? x : Vec<float>{};
}

// Calls use(x, T_y T_x) for the place of every vector of the row `here`, which lies between two
// others. What is beside a vector comes from registers: loads across stores that are still on their
// way would wait for them.
template <class Acc, class Use>
CAMFUSE_INLINE void each_filtered(const Acc* above, const Acc* here, const Acc* below, int64_t w,
                                  const Use& use) {
  constexpr int lanes = kLanes<Acc>;
  const auto column = [&](int64_t x) { return at(above, x) + 2 * at(here, x) + at(below, x); };
  Vec<Acc> before{}, mine = column(0);
  for (int64_t x = 0; x < w; x += lanes) {
    const Vec<Acc> after = column(x + lanes);
    use(x, shifted_in(before, mine) + 2 * mine + shifted_out(mine, after));
    before = mine, mine = after;
  }
}

// From the springs of one grid and which of its cells are kept, those of the next.
inline void set_up_coarser(const ImputeGrid& fine, const ImputeGrid& coarse,
                           const ImputeWork& work) {
  const Plane<float> inverse(fine, work.inverse), springs(fine, work.residual);
  const Plane<float> coarse_inverse(coarse, work.inverse), coarse_springs(coarse, work.residual);
  for (int64_t y = 0; y < coarse.h; ++y) {
    float *spring = coarse_springs.row(y), *d = coarse_inverse.row(y);
    const auto pairs = [&](const Plane<float>& plane, int64_t x) {
      const float *upper = plane.row(2 * y) + 2 * x, *lower = plane.row(2 * y + 1) + 2 * x;
      const Vec<float> a = at(upper, 0) + at(lower, 0);
      const Vec<float> b = at(upper, kLanes<float>) + at(lower, kLanes<float>);
      return evens(a, b) + odds(a, b);
    };
    const int v = line_weight(y, coarse.h);
    const auto diagonal = [&](int64_t x) {
      return static_cast<float>(v * line_weight(x, coarse.w) - 4);
    };
    const int64_t ends[] = {0, coarse.w - 1};
    const float inside = static_cast<float>(4 * v - 4);
    each<float>(coarse.w, [&](int64_t x) {
      const Vec<float> one = coarser_spring(pairs(springs, x));
      const auto has_removed = pairs(inverse, x) != 0;
      store<float>(spring + x, has_removed ? one : splat(1 / kSeriesResistance));
      store<float>(d + x, has_removed ? 1 / (inside + one) : Vec<float>{});
    });
    for (const int64_t x : ends) {
      if (d[x] != 0) d[x] = 1 / (diagonal(x) + spring[x]);
    }
    for (int64_t x = coarse.w; x < coarse.stride - kPlaneHalo; ++x) spring[x] = 0;
  }
}

// The sweeps over one row. What weight 1 makes 0 is left out.
template <bool damped>
struct Sweep {
  float weight;

  // From 0.
  CAMFUSE_INLINE Vec<float> first(Vec<float> inverse, Vec<float> residual) const {
    return damped ? weight * (inverse * residual) : inverse * residual;
  }
  // What the first one leaves of the residual: `around` is T_y T_x - 4 of its result.
  CAMFUSE_INLINE Vec<float> rest(Vec<float> around, const float* residual, int64_t x) const {
    return damped ? (1 - weight) * at(residual, x) + around : around;
  }
  CAMFUSE_INLINE Vec<float> next(Vec<float> z, Vec<float> inverse, Vec<float> rest) const {
    return damped ? (1 - weight) * z + weight * (inverse * rest) : inverse * rest;
  }
};

// Calls use(sweep) for a grid's sweep.
template <class Use>
CAMFUSE_INLINE auto with_sweep(const ImputeGrid& grid, const Use& use) {
  return grid.sweep == 1 ? use(Sweep<false>{1}) : use(Sweep<true>{grid.sweep});
}

// Of the rows of the next grid, the one nearest to row y of this one, and the one behind that.
struct CoarseRows {
  CAMFUSE_INLINE CoarseRows(int64_t y, int64_t h) : near(y / 2), far(y % 2 ? near + 1 : near - 1) {
    far = far < 0 ? 0 : far < h ? far : h - 1;
  }
  int64_t near, far;
};

// Makes z row by row: make(y) computes row y of the residual and its first sweep. What z leaves of
// the residual is restricted to the next grid.
template <class S, class Make>
CAMFUSE_INLINE void restrict_rows(const S& sweep, const ImputeParams& p, int k,
                                  const ImputeWork& work, const Make& make) {
  const ImputeGrid &grid = p.grids[k], &coarse = p.grids[k + 1];
  const Plane<float> inverse(grid, work.inverse), residual(grid, work.residual), z(grid, work.z);
  const Plane<float> coarse_residual(coarse, work.residual);
  float* left = line(work, p.grids[0], 0);
  float* halved = line(work, p.grids[0], 1);
  zero(coarse_residual.row(0), coarse.h * coarse.stride);
  zero(left - kPlaneHalo, p.grids[0].stride + kPlaneHalo);
  make(0);
  for (int64_t y = 0; y < grid.h; ++y) {
    if (y + 1 < grid.h) make(y + 1);
    const float *here = z.row(y), *r = residual.row(y), *d = inverse.row(y);
    each_filtered(z.row(y - 1), here, z.row(y + 1), grid.w, [&](int64_t x, Vec<float> around) {
      const Vec<float> rest = sweep.rest(around - 4 * at(here, x), r, x);
      store<float>(left + x, removed(rest, at(d, x)));
    });
    each<float>(coarse.w, [&](int64_t x) {
      constexpr int lanes = kLanes<float>;
      const float* from = left + 2 * x;
      const Vec<float> a = at(from, -1), b = at(from, lanes - 1);
      const Vec<float> c = at(from, 1), e = at(from, lanes + 1);
      store<float>(halved + x,
                   0.75f * (odds(a, b) + evens(c, e)) + 0.25f * (evens(a, b) + odds(c, e)));
    });
    halved[0] += 0.25f * left[0];
    halved[coarse.w - 1] += 0.25f * left[2 * coarse.w - 1];
    const CoarseRows rows(y, coarse.h);
    float *near = coarse_residual.row(rows.near), *far = coarse_residual.row(rows.far);
    each<float>(coarse.w,
                [&](int64_t x) { store<float>(near + x, at(near, x) + 0.75f * at(halved, x)); });
    each<float>(coarse.w,
                [&](int64_t x) { store<float>(far + x, at(far, x) + 0.25f * at(halved, x)); });
  }
}

// Row y of z, with the correction that the next grid has for it.
inline void correct_row(const ImputeGrid& grid, const ImputeGrid& coarse, const ImputeWork& work,
                        int64_t y, float* between, float* wide, float* to) {
  const Plane<float> coarse_z(coarse, work.z);
  const CoarseRows rows(y, coarse.h);
  const float *near = coarse_z.row(rows.near), *far = coarse_z.row(rows.far);
  each<float>(coarse.w, [&](int64_t x) {
    store<float>(between + x, 0.75f * at(near, x) + 0.25f * at(far, x));
  });
  between[-1] = between[0];
  between[coarse.w] = between[coarse.w - 1];
  each<float>(coarse.w, [&](int64_t x) {
    const Vec<float> here = 0.75f * at(between, x);
    const Vec<float> even = here + 0.25f * at(between, x - 1);
    const Vec<float> odd = here + 0.25f * at(between, x + 1);
    store<float>(wide + 2 * x, first_turns(even, odd));
    store<float>(wide + 2 * x + kLanes<float>, second_turns(even, odd));
  });
  const float *z = Plane<float>(grid, work.z).row(y), *d = Plane<float>(grid, work.inverse).row(y);
  each<float>(grid.w,
              [&](int64_t x) { store<float>(to + x, at(z, x) + removed(at(wide, x), at(d, x))); });
}

// Adds the next grid's correction to z and sweeps once more. Returns residual . z.
template <class S>
CAMFUSE_INLINE double correct_rows(const S& sweep, const ImputeParams& p, int k,
                                   const ImputeWork& work) {
  const ImputeGrid &grid = p.grids[k], &coarse = p.grids[k + 1];
  const Plane<float> inverse(grid, work.inverse), residual(grid, work.residual), z(grid, work.z);
  float* ring[3];
  for (int i = 0; i < 3; ++i) ring[i] = line(work, p.grids[0], i);
  float* between = line(work, p.grids[0], 3);
  float* wide = line(work, p.grids[0], 4);
  zero(ring[0] - kPlaneHalo, 3 * p.grids[0].stride + kPlaneHalo);
  correct_row(grid, coarse, work, 0, between, wide, ring[1]);
  double product = 0;
  for (int64_t y = 0; y < grid.h; ++y) {
    float *above = ring[y % 3], *here = ring[(y + 1) % 3], *below = ring[(y + 2) % 3];
    if (y + 1 < grid.h) {
      correct_row(grid, coarse, work, y + 1, between, wide, below);
    } else {
      zero(below, grid.w);
    }
    const float *r = residual.row(y), *d = inverse.row(y);
    float* to = z.row(y);
    Vec<float> sum{};
    each_filtered(above, here, below, grid.w, [&](int64_t x, Vec<float> around) {
      const Vec<float> right = at(r, x), mine = at(here, x);
      const Vec<float> one = sweep.next(mine, at(d, x), right + (around - 4 * mine));
      store<float>(to + x, one);
      sum += one * right;
    });
    product += static_cast<double>(sum_lanes<float>(sum));
  }
  return product;
}

// One V-cycle: z = M^-1 residual, of which make(y) computes row y. Returns residual . z, an
// estimate of e'Ae.
template <class S, class Make>
CAMFUSE_INLINE double precondition(const S& sweep, const ImputeParams& p, const ImputeWork& work,
                                   const Make& make) {
  const int last = p.grid_count - 1;
  restrict_rows(sweep, p, 0, work, make);
  const auto first_sweep = [&](int k) {
    const ImputeGrid& grid = p.grids[k];
    const Plane<float> inverse(grid, work.inverse), residual(grid, work.residual), z(grid, work.z);
    return [&grid, inverse, residual, z](int64_t y) {
      const float *d = inverse.row(y), *r = residual.row(y);
      float* to = z.row(y);
      with_sweep(grid, [&](const auto& one) {
        each<float>(grid.w,
                    [&](int64_t x) { store<float>(to + x, one.first(at(d, x), at(r, x))); });
      });
    };
  };
  for (int k = 1; k < last; ++k) {
    with_sweep(p.grids[k],
               [&](const auto& one) { restrict_rows(one, p, k, work, first_sweep(k)); });
  }
  first_sweep(last)(0);  // a single cell
  for (int k = last - 1; k > 0; --k) {
    with_sweep(p.grids[k], [&](const auto& one) { correct_rows(one, p, k, work); });
  }
  return correct_rows(sweep, p, 0, work);
}

// Takes the residual of `values` in f64 and preconditions it; returns as `precondition`.
template <class S>
inline double restart(const S& sweep, const ImputeParams& p, const ImputeWork& work) {
  const ImputeGrid& grid = p.grids[0];
  const Plane<float> inverse(grid, work.inverse), residual(grid, work.residual), z(grid, work.z);
  const Plane<double> values(grid, work.values);
  const double* columns = work.wide_columns;
  return precondition(sweep, p, work, [&](int64_t y) {
    const double* here = values.row(y);
    float* r = residual.row(y);
    const double v = line_weight(y, grid.h);
    each_filtered(
        values.row(y - 1), here, values.row(y + 1), grid.w, [&](int64_t x, Vec<double> around) {
          const Vec<double> rest = around - v * at(columns, x) * at(here, x);
          const auto narrow = __builtin_convertvector(rest, Vector<float, kLanes<double>>);
          __builtin_memcpy(r + x, &narrow, sizeof narrow);
        });
    const float* d = inverse.row(y);
    float* to = z.row(y);
    each<float>(grid.w, [&](int64_t x) {
      const Vec<float> rest = removed(at(r, x), at(d, x));
      store<float>(r + x, rest);
      store<float>(to + x, sweep.first(at(d, x), rest));
    });
  });
}

// Goes `step` in the direction and preconditions what is left; returns as `precondition`.
template <class S>
inline double advance(const S& sweep, const ImputeParams& p, const ImputeWork& work, float step) {
  const ImputeGrid& grid = p.grids[0];
  const Plane<float> inverse(grid, work.inverse), residual(grid, work.residual), z(grid, work.z);
  const Plane<float> direction(grid, work.direction), product(grid, work.product);
  const Plane<float> correction(grid, work.correction);
  return precondition(sweep, p, work, [&](int64_t y) {
    const float *along = direction.row(y), *less = product.row(y), *d = inverse.row(y);
    float *sum = correction.row(y), *r = residual.row(y), *to = z.row(y);
    each<float>(grid.w, [&](int64_t x) {
      store<float>(sum + x, at(sum, x) + step * at(along, x));
      const Vec<float> rest = at(r, x) - step * at(less, x);
      store<float>(r + x, rest);
      store<float>(to + x, sweep.first(at(d, x), rest));
    });
  });
}

// direction = z + keep * direction; product = A direction. Returns direction . product.
inline double multiply_direction(const ImputeGrid& grid, const ImputeWork& work, float keep) {
  const Plane<float> inverse(grid, work.inverse), z(grid, work.z);
  const Plane<float> direction(grid, work.direction), product(grid, work.product);
  const auto turn = [&](int64_t y) {
    const float* from = z.row(y);
    float* to = direction.row(y);
    each<float>(grid.w, [&](int64_t x) { store<float>(to + x, at(from, x) + keep * at(to, x)); });
  };
  double energy = 0;
  turn(0);
  for (int64_t y = 0; y < grid.h; ++y) {
    if (y + 1 < grid.h) turn(y + 1);
    const float *here = direction.row(y), *d = inverse.row(y), *columns = work.columns;
    const auto v = static_cast<float>(line_weight(y, grid.h));
    float* to = product.row(y);
    const float *above = direction.row(y - 1), *below = direction.row(y + 1);
    Vec<float> sum{};
    each_filtered(above, here, below, grid.w, [&](int64_t x, Vec<float> around) {
      const Vec<float> mine = at(here, x);
      const Vec<float> one = removed(v * at(columns, x) * mine - around, at(d, x));
      store<float>(to + x, one);
      sum += mine * one;
    });
    energy += static_cast<double>(sum_lanes<float>(sum));
  }
  return energy;
}

// Adds the round's correction to `values`.
inline void take_correction(const ImputeGrid& grid, const ImputeWork& work) {
  const Plane<float> correction(grid, work.correction);
  const Plane<double> values(grid, work.values);
  for (int64_t y = 0; y < grid.h; ++y) {
    float* from = correction.row(y);
    double* to = values.row(y);
    each<double>(grid.w,
                 [&](int64_t x) { store<double>(to + x, at(to, x) + load<double>(from + x)); });
    zero(from, grid.w);
  }
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
