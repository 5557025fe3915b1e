#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/probe.h"

namespace camfuse::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

// Frees the device memory on every path out.
struct DeviceCounter {
  unsigned long long* value = nullptr;
  DeviceCounter() { check(cudaMalloc(&value, sizeof(*value)), "cudaMalloc"); }
  ~DeviceCounter() { cudaFree(value); }
  DeviceCounter(const DeviceCounter&) = delete;
  DeviceCounter& operator=(const DeviceCounter&) = delete;
};

__global__ void sum_indices(int count, unsigned long long* total) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) atomicAdd(total, static_cast<unsigned long long>(i));
}

}  // namespace

int toolkit_version() { return CUDART_VERSION; }

long long probe(int count) {
  DeviceCounter counter;
  check(cudaMemset(counter.value, 0, sizeof(*counter.value)), "cudaMemset");
  constexpr int kThreads = 256;
  if (count > 0) {
    sum_indices<<<(count + kThreads - 1) / kThreads, kThreads>>>(count, counter.value);
    check(cudaGetLastError(), "launch of sum_indices");
  }
  unsigned long long total = 0;
  check(cudaMemcpy(&total, counter.value, sizeof(total), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return static_cast<long long>(total);
}

}  // namespace camfuse::cuda
