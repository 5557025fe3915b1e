// Memory layouts of a layer [B, C, h, w] that kernels read in place.
#pragma once

#include "common/layer_cam_args.h"
#include "cpu/layer_cam_params.h"

namespace camfuse {

// Whether each plane is contiguous and long enough for whole vectors. `p` has C, h and w.
template <class Layer>
bool is_planar(const Layer& p, const LayerView& view) {
  return p.h * p.w >= kMinPlane && (p.w == 1 || view.column == 1) && (p.h == 1 || view.row == p.w);
}

// Whether the channels of a position are contiguous, positions evenly apart, and long enough.
template <class Layer>
bool is_rows(const Layer& p, const LayerView& view) {
  return p.C >= kMinPlane && view.channel == 1 &&
         (p.h == 1 || p.w == 1 || view.row == p.w * view.column);
}

}  // namespace camfuse
