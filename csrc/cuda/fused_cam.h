// fused_cam on a CUDA device, from a plan of layer_cam. Free of torch and of CUDA's headers.
#pragma once

#include "cuda/layer_cam_params.h"

namespace camfuse::cuda {

// Throws if the sides of `display` are more than the kernel can count.
void check_display(const Display& display);

// Puts everything on `stream`, a cudaStream_t: at most two kernels, and returns. `plan` is of one
// rule and of the same display; its maps and ranges lie in the workspace.
void launch_fused_cam(const LayerCamPlan& plan, const Display& display, void* workspace,
                      void* stream);

}  // namespace camfuse::cuda
