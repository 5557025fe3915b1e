// The finishing half of fused_cam on the CPU: maps to [0, 1], then to the size asked for.
// Torch-free.
#pragma once

#include <stdint.h>

#include "cpu/fused_cam_params.h"

namespace camfuse {
namespace CAMFUSE_ISA {

template <class Acc>
struct FusedCam {
  const FusedCamParams& p;

  static Acc rectified(Acc x) { return x < 0 ? 0 : x; }  // NaN stays NaN

  // A constant map becomes 0. One that holds NaN has a range of NaN and becomes NaN.
  void normalize(int64_t b) const {
    const Acc* range = static_cast<const Acc*>(p.ranges) + 2 * b;
    const Acc low = p.relu ? rectified(range[0]) : range[0];
    const Acc high = p.relu ? rectified(range[1]) : range[1];
    Acc* __restrict map = static_cast<Acc*>(p.maps) + b * p.h * p.w;
    const int64_t n = p.h * p.w;
    if (low == high) {
      for (int64_t i = 0; i < n; ++i) map[i] = 0;
    } else if (p.relu) {
      for (int64_t i = 0; i < n; ++i) map[i] = (rectified(map[i]) - low) / (high - low);
    } else {
      for (int64_t i = 0; i < n; ++i) map[i] = (map[i] - low) / (high - low);
    }
  }

  // Row y of the map, W wide.
  void widen(const Acc* __restrict map, int64_t y, Acc* __restrict wide) const {
    const Acc* row = map + y * p.w;
    const Acc* fraction = static_cast<const Acc*>(p.x_fraction);
    for (int64_t x = 0; x < p.W; ++x) {
      wide[x] = row[p.left[x]] * (1 - fraction[x]) + row[p.right[x]] * fraction[x];
    }
  }

  // Rounding is monotonic and 1 - f + f rounds to 1, so results never leave [0, 1].
  void upsample(int64_t b, int64_t band, Acc* wide /* [2, W] */) const {
    const Acc* map = static_cast<const Acc*>(p.maps) + b * p.h * p.w;
    Acc* rows[2] = {wide, wide + p.W};
    int64_t held[2] = {-1, -1};  // which row of the map each buffer holds
    const int64_t end = (band + 1) * p.band < p.H ? (band + 1) * p.band : p.H;
    for (int64_t y = band * p.band; y < end; ++y) {
      if (held[1] == p.upper[y]) {  // the lower row of the line above is the upper one here
        Acc* const row = rows[0];
        rows[0] = rows[1], rows[1] = row;
        held[1] = held[0], held[0] = p.upper[y];
      }
      if (held[0] != p.upper[y]) widen(map, held[0] = p.upper[y], rows[0]);
      if (held[1] != p.lower[y]) widen(map, held[1] = p.lower[y], rows[1]);
      const Acc fraction = static_cast<const Acc*>(p.y_fraction)[y];
      const Acc *upper = rows[0], *lower = rows[1];
      Acc* __restrict out = static_cast<Acc*>(p.result) + (b * p.H + y) * p.W;
      for (int64_t x = 0; x < p.W; ++x) out[x] = upper[x] * (1 - fraction) + lower[x] * fraction;
    }
  }

  void run(FusedCamStage stage, int64_t task, void* scratch) const {
    switch (stage) {
      case FusedCamStage::kNormalize: return normalize(task);
      case FusedCamStage::kUpsample:
        return upsample(task / p.bands, task % p.bands, static_cast<Acc*>(scratch));
    }
  }
};

// Runs the tasks [begin, end) of a stage. `scratch` holds [2, W] elements of the maps' type.
void run_fused_cam(FusedCamStage stage, const FusedCamParams& p, int64_t begin, int64_t end,
                   void* scratch) {
  for (int64_t task = begin; task < end; ++task) {
    if (p.is_double)
      FusedCam<double>{p}.run(stage, task, scratch);
    else
      FusedCam<float>{p}.run(stage, task, scratch);
  }
}

}  // namespace CAMFUSE_ISA
}  // namespace camfuse
