// What principal_map is asked for, as plain data, for every backend. Torch-free.
#pragma once

#include "common/host_device.h"
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

// The share of a start that is noise, so that the start is orthogonal to nothing.
constexpr double kNoiseShare = 0.125;

// In [-1, 1), the same for the same i everywhere (the finaliser of MurmurHash3).
CAMFUSE_HD float principal_noise(int64_t i) {
  uint32_t x = static_cast<uint32_t>(i) * 0x9e3779b9u + 0x7f4a7c15u;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  x ^= x >> 16;
  return static_cast<float>(x >> 8) * 0x1p-23f - 1;
}

}  // namespace camfuse
