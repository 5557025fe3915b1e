// What the finishing half of fused_cam needs to know, as plain data. Torch-free.
#pragma once

#include <stdint.h>

namespace camfuse {

// "Acc" is double or float.
struct FusedCamParams {
  bool is_double;
  int64_t B, h, w;  // maps
  int64_t H, W;     // results
  bool relu;
  void* maps;          // Acc [B, h, w], signed; normalised in place
  const void* ranges;  // Acc [B, 2], of the signed maps
  // Bilinear weights per column: left * (1 - fraction) + right * fraction; per row likewise.
  const int64_t *left, *right;          // [W]
  const int64_t *upper, *lower;         // [H]
  const void *x_fraction, *y_fraction;  // Acc [W], [H]
  int64_t band, bands;  // rows of a result that one task makes, and how many tasks make one
  void* result;         // Acc [B, H, W]
};

enum class FusedCamStage {
  kNormalize,  // task b
  kUpsample,   // task (b, band)
};

}  // namespace camfuse
