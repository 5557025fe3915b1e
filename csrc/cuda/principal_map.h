// principal_map on a CUDA device: the plan, then the launch. Free of torch and of CUDA's headers.
#pragma once

#include "common/principal_map_args.h"

namespace camfuse::cuda {

struct CudaPrincipalMapParams : PrincipalMapArgs {
  bool rows;  // a line is the channels of a position; else it is the plane of a channel
  // Positions, channels, and what runs in lines and along them, in the 32 bits that a GPU has.
  int positions, channels, width, lines, length;
  // What `terms` mean, apart: a choice among six would become a jump to a computed address.
  bool weighted, has_gradients, rectifies_gradients, magnifies_gradients, rectifies_products;
  // Where the terms lie, elements of a line side by side: in the activations themselves, or in the
  // workspace, where a kernel puts them first.
  bool in_place;
  struct {
    const void* data;     // Acc
    int64_t batch, line;  // strides in elements
  } from;
  int most_steps;
  double tolerance;

  // Workspace, for each sample
  void* made_terms;    // Acc [B, lines, length], if not in place
  void* means;         // Acc [B, C]
  void* offsets;       // Acc [B, C]: what is left of the means (rows only)
  void* energies;      // Acc [B, positions]: squared norms of the rows of terms, scaled
  void* values;        // Acc [B, positions]: the map before its sign is known
  void* coefficients;  // Acc [B, lines]
  void* basis;         // Acc [B, most_steps + 2, length]: see Note: [Lanczos] in its kernel
};

struct PrincipalMapPlan {
  CudaPrincipalMapParams params;  // its workspace is not there yet
  int64_t workspace_bytes;
};

// Throws if there is more of something than the kernel can count.
PrincipalMapPlan plan_principal_map(const PrincipalMapArgs& args);

// Puts everything on `stream`, a cudaStream_t: terms that are not read in place, then one kernel
// with a block for each sample.
void launch_principal_map(const PrincipalMapPlan& plan, void* workspace, void* stream);

}  // namespace camfuse::cuda
