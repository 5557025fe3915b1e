#include "common/divide.h"
#include "cuda/launch.h"
#include "cuda/probe.h"

namespace camfuse::cuda {
namespace {

// Frees the device memory on every path out.
struct DeviceCounter {
  unsigned long long* value = nullptr;
  DeviceCounter() { check_cuda(cudaMalloc(&value, sizeof(*value)), "cudaMalloc"); }
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
  check_cuda(cudaMemset(counter.value, 0, sizeof(*counter.value)), "cudaMemset");
  constexpr int kThreads = 256;
  if (count > 0) {
    launch("sum_indices", sum_indices, divide_up(count, kThreads), kThreads, 0, nullptr, count,
           counter.value);
  }
  unsigned long long total = 0;
  check_cuda(cudaMemcpy(&total, counter.value, sizeof(total), cudaMemcpyDeviceToHost),
             "cudaMemcpy");
  return static_cast<long long>(total);
}

}  // namespace camfuse::cuda
