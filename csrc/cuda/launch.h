// How launchers see the device: its size, and the one way to start a kernel. Torch-free; where
// there is no nvcc, the emulator stands in for what is used of CUDA here.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/device.cuh"

namespace camfuse::cuda {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it, if it is not one that stays
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// What plans depend on, so that results depend on the kind of device and never on its load.
struct Device {
  int multiprocessors;
  int64_t shared_bytes;  // dynamic shared memory a block may ask for
};

// Of the current device.
inline Device current_device() {
  const auto attribute = [](cudaDeviceAttr which) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  return {attribute(cudaDevAttrMultiProcessorCount),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
}

// Shared memory that a kernel may use without asking for it.
constexpr int64_t kUsualSharedBytes = 48 << 10;

// Starts `blocks` blocks of `threads` threads. `name` is for the error.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), int64_t blocks, int threads,
            int64_t shared_bytes, cudaStream_t stream, const Args&... args) {
  if (blocks == 0) return;
  if (blocks > 0x7fffffff) {
    throw std::invalid_argument(std::string(name) + ": " + std::to_string(blocks) +
                                " blocks are more than a launch can have");
  }
#ifdef __CUDACC__
  if (shared_bytes > kUsualSharedBytes) {
    // A limit of the kernel on this device, not of this launch: always the same one, or launches
    // from several threads would lower it for each other.
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(current_device().shared_bytes)),
               name);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, static_cast<size_t>(shared_bytes), stream>>>(
      args...);
  check_cuda(cudaGetLastError(), name);
#else
  (void)stream;
  emulated::launch(blocks, threads, shared_bytes, [&] { kernel(args...); });
#endif
}

}  // namespace camfuse::cuda
