// One small kernel that proves the CUDA wiring: toolchain, embedded architectures, launch, errors.
#pragma once

namespace camfuse::cuda {

// The toolkit that compiled the kernels, as CUDART_VERSION (13000 for 13.0).
int toolkit_version();

// The sum 0 + 1 + ... + (count - 1), computed on the current device. Throws on any CUDA error.
long long probe(int count);

}  // namespace camfuse::cuda
