// layer_cam on a CUDA device: the plan, then the launches. Free of torch and of CUDA's headers.
#pragma once

#include "cuda/layer_cam_params.h"

namespace camfuse::cuda {

// Throws if there is more of something than the kernels can count. `display` is empty, or
// fused_cam's.
void check_layer_cam(const LayerCamArgs& args, const Display& display);

// How the current device is to do it, and the workspace it takes. Maps and ranges that `args` does
// not name lie in the workspace. `display` is for fused_cam; its result may be null.
LayerCamPlan plan_layer_cam(const LayerCamArgs& args, const Display& display);

// Puts everything on `stream`, a cudaStream_t: at most two kernels, and returns what it launched.
CudaLayerCamParams launch_layer_cam(const LayerCamPlan& plan, void* workspace, void* stream);

}  // namespace camfuse::cuda
