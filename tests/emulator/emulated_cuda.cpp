#include "emulated_cuda.h"

#include <cstring>

#include "device_memory.h"

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  switch (which) {
    case cudaDevAttrMultiProcessorCount:
      *value = emulated::device_size.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulated::device_size.shared_bytes;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t) {
  const emulated::Running device(/*host=*/false, /*device=*/true);
  std::memset(to, byte, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  const emulated::Running both(/*host=*/true, /*device=*/true);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
