// Whether the kernels run on a device. Free of torch and of CUDA's headers.
#pragma once

namespace camfuse::cuda {

// The oldest compute capability that cmake/CudaSwitch.cmake compiles for.
constexpr int kOldestCapability = 75;

// Throws, naming the CPU as the way out, unless the kernels run on device number `device`.
void check_supported(int device);

}  // namespace camfuse::cuda
