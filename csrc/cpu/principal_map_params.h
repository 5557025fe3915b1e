// How principal_map is done on the CPU: what is asked for, and the plan of the work. Torch-free.
#pragma once

#include "common/principal_map_args.h"
#include "cpu/layer_cam_params.h"

namespace camfuse {

struct PrincipalMapParams : PrincipalMapArgs {
  bool rows;      // a line is the channels of a position; else it is the plane of a channel
  bool in_place;  // terms are read where they lie; else they are made, kGroup lines at a time
  bool packs_a, packs_g;  // and before that, planes are copied

  // The lines of a sample are cut into `slabs` slabs of `slab`, and what runs along a line into
  // `tiles` tiles of `tile`. Their size never depends on the batch or the thread count.
  int64_t lines, slab, slabs;
  int64_t length, tile, tiles;  // of a line, padded to at least kMinPlane
  int64_t padded;               // length of vectors along a line: whole vectors, the rest is 0
  int64_t most_steps;

  // Bytes of a thread's scratch: terms of kGroup lines; and those of A and G, if they are packed.
  int64_t scratch_bytes() const {
    const int64_t elements = kGroup * length;
    return (in_place ? 0 : elements * acc_size(dtype)) +
           (packs_a || packs_g ? 2 * elements * element_size(dtype) : 0);
  }
};

// What is known of the sample in work. Terms are scaled by `scale`, a power of two that brings the
// largest near 1, wherever they are squared.
struct PrincipalMapSample {
  int64_t b;
  int64_t steps;      // made so far: the basis vector `steps` is the next to be multiplied
  double scale;       // of the terms
  double amplitude;   // of the random part of the start
  double square_sum;  // of the coefficients of the lines
  double coefficient_sum;
  void* factors;   // Acc [C]: channel weights, if terms have them
  void* means;     // Acc [C]: of each channel's terms
  void* offsets;   // Acc [C]: what is left of the means (rows only)
  void* energies;  // Acc [positions, padded]: squared norms of the rows of terms, scaled
  void* values;    // Acc [positions, padded]: the map before its sign is known
  void* parts;     // Acc [slabs, 2, padded]: what each slab adds to a vector
  // Acc [1 + kMostSteps, padded]: the basis. The first is constant in a sample of planes, so that
  // everything made orthogonal to it is centred; rows lack it. Vectors are not of length 1.
  void* basis;
  double lengths[kMostSteps + 2];                   // of the basis vectors
  double diagonal[kMostSteps], beside[kMostSteps];  // the tridiagonal matrix
  double weights[kMostSteps + 2];                   // of the basis vectors in what a stage makes
  double* slab_sums;                                // [slabs, 2]
  double* tile_sums;                                // [tiles, kMostSteps + 2]
};

// The steps of principal_map for one sample. Tasks of a stage are independent; stages follow one
// another.
enum class PrincipalMapStage {
  kFactors,     // task 0 (weighted): `factors`
  kMeasure,     // task slab: means, or a slab's part of them; the largest term
  kMeans,       // task 0 (rows): `means` from parts
  kEnergies,    // task slab: `energies`, or a slab's part; a first vector along the lines
  kGather,      // task tile: joins the parts of kEnergies
  kStart,       // task tile: the basis vector to begin with; dots as of kDots
  kMultiply,    // task slab: the matrix times the newest basis vector, a slab's part
  kNext,        // task tile: joins the parts to the next basis vector; dots as of kDots
  kDots,        // task tile: dots of the newest basis vector with all
  kOrthogonal,  // task tile: takes the basis vectors out of the newest
  kCombine,     // task tile: the singular vector along a line
  kProject,     // task slab (rows): the map, terms times singular vector
  kFinish,      // task 0: `maps`, `ranges` and `scales`
  kNotFinite,   // task 0: the same of a sample with terms that are not finite
};

inline bool reads_lines(PrincipalMapStage stage) {
  return stage == PrincipalMapStage::kMeasure || stage == PrincipalMapStage::kEnergies ||
         stage == PrincipalMapStage::kMultiply || stage == PrincipalMapStage::kProject;
}

}  // namespace camfuse
