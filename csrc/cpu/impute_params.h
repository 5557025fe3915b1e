// How impute is done on the CPU: what is asked for, the grids, and one task's memory. Torch-free.
#pragma once

#include "common/divide.h"
#include "common/impute_args.h"

namespace camfuse {

constexpr int64_t kPlaneHalo = 16;  // zeros before, between and behind the rows of a plane
constexpr int kMostGrids = 32;

// A plane of h rows of w, `stride` apart, with a row of zeros above and one below.
struct ImputeGrid {
  int64_t h, w, stride;
  int64_t origin;  // of the pixel (0, 0), where the planes of all grids lie one after another
  float sweep;     // weight of a Jacobi sweep
};

struct ImputeParams : ImputeArgs {
  ImputeGrid grids[kMostGrids];  // the image's, each coarser one, down to a single cell
  int grid_count;
  int64_t plane;  // elements of the image's grid, zeros included
  int64_t cells;  // the same of all grids together
};

inline void set_grids(ImputeParams& p) {
  int64_t h = p.H, w = p.W, end = 0;
  for (p.grid_count = 0;; h = divide_up(h, 2), w = divide_up(w, 2)) {
    const int64_t stride = divide_up(w, kPlaneHalo) * kPlaneHalo + kPlaneHalo;
    p.grids[p.grid_count++] = {h, w, stride, end + stride + kPlaneHalo, sweep_weight(h, w)};
    end += (h + 2) * stride + kPlaneHalo;
    if (p.grid_count == 1) p.plane = end;
    if (h == 1 && w == 1) break;
  }
  p.cells = end;
}

constexpr int kImputeLines = 5;

// Memory of a task, zero at first. Where pixels are kept, the planes but `values` and
// springs stay 0.
struct ImputeWork {
  // Planes of all grids, [cells].
  float* inverse;   // of the diagonal of A; 0 where a cell is kept
  float* residual;  // first the springs, until all grids are set up
  float* z;         // the preconditioned residual
  // Planes of the image's grid, [plane].
  float* direction;
  float* product;     // A times the direction
  float* correction;  // of `values`, made in this round
  double* values;     // the channel, its range being 1 and its middle 0
  // [kImputeLines, stride of the image's grid]
  float* lines;
  double* wide_line;  // [stride of the image's grid]
  // T 1 along the rows of the image, then zeros.
  float* columns;
  double* wide_columns;
};

}  // namespace camfuse
