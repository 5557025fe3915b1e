#include "cuda/launch.h"
#include "cuda/supported.h"

namespace camfuse::cuda {

void check_supported(int device) {
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  if (10 * major + minor >= kOldestCapability) return;
  throw std::runtime_error("cuda:" + std::to_string(device) + " has compute capability " +
                           std::to_string(major) + "." + std::to_string(minor) +
                           "; camfuse's CUDA kernels need 7.5 or newer. Move the model and its "
                           "input to the CPU instead: .to('cpu')");
}

}  // namespace camfuse::cuda
