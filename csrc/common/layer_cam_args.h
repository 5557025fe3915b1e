// What layer_cam is asked for, as plain data, for every backend. Torch-free.
#pragma once

#include <stdint.h>

#include "common/enums.h"

namespace camfuse {

enum class Dtype : int { kF64, kF32, kBF16, kF16 };

inline int64_t element_size(Dtype dtype) {
  return dtype == Dtype::kF64 ? 8 : dtype == Dtype::kF32 ? 4 : 2;
}
// Of maps, ranges and whatever is added up.
inline int64_t acc_size(Dtype dtype) { return dtype == Dtype::kF64 ? 8 : 4; }

// One of the tensors A and G, [B, C, h, w]; strides in elements.
struct LayerView {
  const void* data;  // null: not given
  int64_t batch, channel, row, column;
};

// Sums over the positions of a channel's plane that some rule asks for.
enum PlaneSum : int { kSumG, kSumA, kSumGA, kSumAlpha, kPlaneSumCount };

// "Acc" is double for f64 inputs and float for all others.
struct LayerCamArgs {
  Dtype dtype;
  int64_t B, C, h, w;
  LayerView a, g;
  LayerView weights;  // [B, C]: only data, batch and channel
  const Rule* rules;  // [R]
  int64_t R;
  bool uses[kRuleCount];  // whether a rule of `rules` has this base
  void* maps;             // Acc [R, B, h * w]
  void* ranges;           // Acc [R, B, 2]
};

inline bool uses(const LayerCamArgs& args, Rule base) { return args.uses[static_cast<int>(base)]; }

inline bool needs(const LayerCamArgs& args, PlaneSum sum) {
  switch (sum) {
    case kSumG: return uses(args, Rule::kGradCam);
    case kSumA: return uses(args, Rule::kXGradCam) || uses(args, Rule::kGradCamPlusPlus);
    case kSumGA: return uses(args, Rule::kXGradCam);
    default: return uses(args, Rule::kGradCamPlusPlus);
  }
}

// Added to denominators, so that none is 0.
constexpr double kGradCamPlusPlusEpsilon = 1e-6;
constexpr double kXGradCamEpsilon = 1e-7;

}  // namespace camfuse
