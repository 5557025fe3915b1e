// What impute is asked for, and the mathematics that every backend shares. Torch-free.
//
// Note: [the linear system]
// A removed pixel is the weighted mean of its neighbours in the image, 2 to each side and 1 at each
// corner (Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution
// Methods", section 4). With T the filter (1, 2, 1), 0 beyond the border, times 12:
//
//   (A x)(y, x) = v_y v_x x(y, x) - (T_y T_x x)(y, x)       v = T 1: 4, at borders 3
//
// over the removed pixels, those that were kept being 0; so A is a symmetric M-matrix, its diagonal
// v_y v_x - 4. The right-hand side is T_y T_x of the kept pixels.
//
// Note: [the preconditioner]
// Conjugate gradients, preconditioned by one V-cycle: a Jacobi sweep before and one after the
// coarser grid's correction. This stencil's eigenvalues for errors that a coarser grid cannot see
// lie in [2/3, 4/3] of the diagonal, so that an undamped sweep takes two thirds of them. (A grid of
// one line has them in [1, 2], and needs the weight 2/3.)
//
// A coarser grid has a cell for 2 x 2 cells, and the same stencil. What a kept pixel is to cells is
// a spring to 0 of stiffness c on their diagonal: K where a cell is kept whole. Springs of children
// act side by side; between their grid and the next lies a resistance R, in series:
//
//   c = s / (1 + R s),   s the sum over the children,   K = 1 / R
//
// A lone pixel's spring gives way by R with each doubling of distance, as a logarithmic potential
// does; the springs along a straight border keep their stiffness per cell.
//
// Corrections are interpolated linearly between cell centres; residuals are restricted by the
// transpose of that, so that the preconditioner is symmetric. It sees the error's energy e'Ae with
// a relative error that does not grow with the image. In two dimensions that energy does not change
// with scale either, which makes it the measure of how far pixels still are from the solution.
#pragma once

#include "common/host_device.h"
#include "common/layer_cam_args.h"

namespace camfuse {

struct ImputeArgs {
  Dtype dtype;  // of image and images: f64 or f32
  int64_t N, C, H, W;
  LayerView image;    // [C, H, W]: batch is unused
  LayerView masks;    // bytes [N, H, W]: channel is unused; not 0 = removed
  double tolerance;   // of sqrt(e'Ae / 12), in units of the range of the kept pixels
  void* images;       // [N, C, H, W]
  double* residuals;  // [N]: the largest sqrt(e'Ae / 12) of its channels, as estimated
};

constexpr float kSeriesResistance = 0.4f / 12;

// The spring of a cell, or of a vector of them, whose children's springs add up to `sum`.
template <class F>
CAMFUSE_HD F coarser_spring(F sum) {
  return sum / (1 + kSeriesResistance * sum);
}

// (T 1)(i) on a line of `length`.
CAMFUSE_HD int line_weight(int64_t i, int64_t length) {
  return 2 + (i > 0 ? 1 : 0) + (i + 1 < length ? 1 : 0);
}

// The weight of a Jacobi sweep; see [the preconditioner].
CAMFUSE_HD float sweep_weight(int64_t h, int64_t w) {
  return (h == 1) != (w == 1) ? 2.0f / 3 : 1.0f;
}

// Corrections are made in f32; each round of them takes the residual anew in f64.
constexpr int kMostImputeRounds = 8;
constexpr int kMostImputeSteps = 40;  // of conjugate gradients in one round
constexpr double kRoundGain = 1e-5;   // what f32 can take off the energy's root in one round
constexpr double kRoundSlack = 0.5;   // of the tolerance, at which a round ends

}  // namespace camfuse
