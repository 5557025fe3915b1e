// impute on a CUDA device: the plan, then the launch. Free of torch and of CUDA's headers.
#pragma once

#include "common/impute_args.h"

namespace camfuse::cuda {

constexpr int kMostGrids = 32;

// A plane of h rows of w with zeros all around; the one between two rows is on the right of one and
// on the left of the other.
struct CudaImputeGrid {
  int h, w, stride;
  int origin;   // of the cell (0, 0), where the planes of all grids lie one after another
  float sweep;  // weight of a Jacobi sweep
};

struct CudaImputeParams : ImputeArgs {
  CudaImputeGrid grids[kMostGrids];  // the image's, each coarser one, down to a single cell
  int grid_count;
  int plane;        // elements of the image's grid, zeros included
  int cells;        // the same of all grids together
  int64_t systems;  // a channel of a mask each
  int blocks;       // that share them

  // Workspace, for each block. Where pixels are kept, all planes but `values` and springs stay 0.
  // Planes of all grids, [blocks, cells].
  float* inverse;   // of the diagonal of A; 0 where a cell is kept
  float* residual;  // first the springs, until all grids are set up
  float* z;         // the preconditioned residual
  float* product;   // A times the direction; where z is made, what a sweep starts from or leaves
  // Planes of the image's grid, [blocks, plane].
  float* direction;
  float* correction;  // of `values`, made in this round
  double* values;     // the channel, its range being 1 and its middle 0
};

struct ImputePlan {
  CudaImputeParams params;  // its workspace is not there yet
  int threads;              // of a block
  int64_t workspace_bytes;
};

// How the current device is to do it. Throws if there is more of something than the kernel can
// count.
ImputePlan plan_impute(const ImputeArgs& args);

// Puts everything on `stream`, a cudaStream_t: one kernel, after the residuals are set to 0.
void launch_impute(const ImputePlan& plan, void* workspace, void* stream);

}  // namespace camfuse::cuda
