// layer_cam's maps from checked arguments, for the ops built on it.
#pragma once

#include "common/layer_cam_args.h"

namespace camfuse {

// Fills args.maps and args.ranges.
void compute_layer_cam(const LayerCamArgs& args);

}  // namespace camfuse
