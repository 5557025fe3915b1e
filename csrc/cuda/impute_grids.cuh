// The sweeps over grids that impute is made of; see [the preconditioner] in common/impute_args.h.
//
// A block works on planes of its own, a warp on each row. Planes have zeros on either side, so that
// the stencil needs no case for borders. The CPU does the same, csrc/cpu/impute_grids.h.
// Torch-free.
#pragma once

#include "cuda/device.cuh"
#include "cuda/impute.h"

namespace camfuse::cuda {

// A block's own part of the workspace.
struct ImputePlanes {
  float *inverse, *residual, *z, *product, *direction, *correction;
  double* values;

  __device__ __forceinline__ ImputePlanes(const CudaImputeParams& p, int64_t block)
      : inverse(p.inverse + block * p.cells),
        residual(p.residual + block * p.cells),
        z(p.z + block * p.cells),
        product(p.product + block * p.cells),
        direction(p.direction + block * p.plane),
        correction(p.correction + block * p.plane),
        values(p.values + block * p.plane) {}
};

// Calls use(y, x, place in a plane) for each cell.
template <class Use>
__device__ __forceinline__ void each_cell(const CudaImputeGrid& grid, const Use& use) {
  const int warps = blockDim.x / kWarp;
  for (int y = threadIdx.x / kWarp; y < grid.h; y += warps) {
    const int row = grid.origin + y * grid.stride;
    for (int x = threadIdx.x % kWarp; x < grid.w; x += kWarp) use(y, x, row + x);
  }
}

// T_y T_x of the plane, here.
template <class A>
__device__ __forceinline__ A filtered(const A* here, int stride) {
  const auto across = [](const A* at) { return at[-1] + 2 * at[0] + at[1]; };
  return across(here - stride) + 2 * across(here) + across(here + stride);
}

// From the springs of one grid and which of its cells are kept, those of the next.
__device__ __forceinline__ void set_up_coarser(const CudaImputeGrid& fine,
                                               const CudaImputeGrid& coarse,
                                               const ImputePlanes& at) {
  each_cell(coarse, [&](int y, int x, int i) {
    const int child = fine.origin + 2 * y * fine.stride + 2 * x;
    const auto of_children = [&](const float* plane) {
      const float *upper = plane + child, *lower = upper + fine.stride;
      return upper[0] + upper[1] + (lower[0] + lower[1]);
    };
    const bool has_removed = of_children(at.inverse) != 0;
    const float spring =
        has_removed ? coarser_spring(of_children(at.residual)) : 1 / kSeriesResistance;
    const int weights = line_weight(y, coarse.h) * line_weight(x, coarse.w);
    at.residual[i] = spring;
    at.inverse[i] = has_removed ? 1 / (static_cast<float>(weights - 4) + spring) : 0.0f;
  });
}

// What z, the first sweep over the residual, leaves of it: into `product`.
__device__ __forceinline__ void leave(const CudaImputeGrid& grid, const ImputePlanes& at) {
  each_cell(grid, [&](int, int, int i) {
    const float rest =
        (1 - grid.sweep) * at.residual[i] + (filtered(at.z + i, grid.stride) - 4 * at.z[i]);
    at.product[i] = at.inverse[i] != 0 ? rest : 0.0f;
  });
}

// That, restricted to the next grid, and the first sweep over it. A cell's neighbours give it a
// quarter; what they would give beyond the border stays with those inside.
__device__ __forceinline__ void restrict_residual(const CudaImputeGrid& fine,
                                                  const CudaImputeGrid& coarse,
                                                  const ImputePlanes& at) {
  each_cell(coarse, [&](int y, int x, int i) {
    const auto before = [](int c) { return c > 0 ? 2 * c - 1 : 0; };
    const auto behind = [](int c, int length) { return c + 1 < length ? 2 * c + 2 : 2 * c + 1; };
    const int left = before(x), right = behind(x, coarse.w);
    const auto across = [&](int fine_y) {
      const float* const row = at.product + fine.origin + fine_y * fine.stride;
      return 0.75f * (row[2 * x] + row[2 * x + 1]) + 0.25f * (row[left] + row[right]);
    };
    const float r = 0.75f * (across(2 * y) + across(2 * y + 1)) +
                    0.25f * (across(before(y)) + across(behind(y, coarse.h)));
    at.residual[i] = r;
    at.z[i] = coarse.sweep * at.inverse[i] * r;
  });
}

// z with the correction that the next grid has for it: into `product`.
__device__ __forceinline__ void correct(const CudaImputeGrid& fine, const CudaImputeGrid& coarse,
                                        const ImputePlanes& at) {
  // Of the next grid's lines, the one that is second nearest to line i of this one.
  const auto far = [](int i, int length) {
    return i % 2 == 0 ? max(i / 2 - 1, 0) : min(i / 2 + 1, length - 1);
  };
  each_cell(fine, [&](int y, int x, int i) {
    const float* const near_row = at.z + coarse.origin + y / 2 * coarse.stride;
    const float* const far_row = at.z + coarse.origin + far(y, coarse.h) * coarse.stride;
    const auto between = [&](int c) { return 0.75f * near_row[c] + 0.25f * far_row[c]; };
    const float correction = 0.75f * between(x / 2) + 0.25f * between(far(x, coarse.w));
    at.product[i] = at.z[i] + (at.inverse[i] != 0 ? correction : 0.0f);
  });
}

// z = the last sweep over that. Returns this thread's part of residual . z.
__device__ __forceinline__ float sweep_again(const CudaImputeGrid& grid, const ImputePlanes& at) {
  float dot = 0;
  each_cell(grid, [&](int, int, int i) {
    const float here = at.product[i], r = at.residual[i];
    const float rest = r + (filtered(at.product + i, grid.stride) - 4 * here);
    const float z = (1 - grid.sweep) * here + grid.sweep * at.inverse[i] * rest;
    at.z[i] = z;
    dot += r * z;
  });
  return dot;
}

// One V-cycle: z = M^-1 residual, where z holds the image's first sweep already. Returns this
// thread's part of residual . z; a barrier is due before and after.
__device__ __forceinline__ float precondition(const CudaImputeParams& p, const ImputePlanes& at) {
  const int last = p.grid_count - 1;
  for (int k = 0; k < last; ++k) {
    leave(p.grids[k], at);
    __syncthreads();
    restrict_residual(p.grids[k], p.grids[k + 1], at);
    __syncthreads();
  }
  for (int k = last - 1; k > 0; --k) {
    correct(p.grids[k], p.grids[k + 1], at);
    __syncthreads();
    sweep_again(p.grids[k], at);
    __syncthreads();
  }
  correct(p.grids[0], p.grids[1], at);
  __syncthreads();
  return sweep_again(p.grids[0], at);
}

}  // namespace camfuse::cuda
