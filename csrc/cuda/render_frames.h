// render_frames on CUDA. Free of torch and of CUDA's headers.
#pragma once

#include "common/render_frames_args.h"

namespace camfuse::cuda {

// Bytes of device memory, aligned to 16, that a call needs on the current device.
int64_t render_frames_workspace(const RenderFramesArgs& args);

// Starts the work on the current device and returns; `stream` is a cudaStream_t. Host memory that
// `args` points to is not read later, and nothing of the device's memory is read by the host.
void render_frames(const RenderFramesArgs& args, void* workspace, void* stream);

}  // namespace camfuse::cuda
