// What principal_map is asked for, as plain data, for every backend. Torch-free.
#pragma once

#include "common/layer_cam_args.h"

namespace camfuse {

// "Acc" is double for f64 inputs and float for all others.
struct PrincipalMapArgs {
  Dtype dtype;
  Terms terms;
  int64_t B, C, h, w;
  LayerView a, g;
  LayerView weights;  // [B, C]: only data, batch and channel
  void* maps;         // Acc [B, h * w]
  void* ranges;       // Acc [B, 2]
  void* scales;       // Acc [B]
};

// Steps of the Lanczos method that no sample exceeds. Where the largest singular value is 1.01
// times the second one, 128 leave an error of 1e-14 even if all others lie close to the second.
constexpr int kMostSteps = 128;

// The angle to the singular vector that is good enough.
constexpr double principal_tolerance(Dtype dtype) { return dtype == Dtype::kF64 ? 1e-12 : 1e-6; }

}  // namespace camfuse
