// Memory of the device, for a program without torch. Where there is no nvcc, the emulator's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cuda/launch.h"
#ifndef __CUDACC__
#include "device_memory.h"
#endif

namespace standalone {

// `bytes` bytes, `offset` bytes after an address aligned to 256 (to 16 in the emulator).
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t bytes, std::size_t offset = 0) : bytes_(bytes) {
#ifdef __CUDACC__
    camfuse::cuda::check_cuda(cudaMalloc(&memory_, bytes + offset), "cudaMalloc");
    data_ = static_cast<unsigned char*>(memory_) + offset;
#else
    memory_ = data_ = emulated::allocate("a buffer", emulated::Side::kDevice, bytes, offset);
#endif
    fill(0xFF);  // NaN, -1: what no one writes shows
  }
  ~DeviceBuffer() {
#ifdef __CUDACC__
    cudaFree(memory_);
#else
    emulated::release(memory_);
#endif
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void* get() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  void fill(int byte) {
    camfuse::cuda::check_cuda(cudaMemsetAsync(data_, byte, bytes_, nullptr), "cudaMemsetAsync");
  }
  template <class T>
  void write(const std::vector<T>& from) {
    copy(data_, from.data(), from.size() * sizeof(T));
  }
  // Waits for the device, and so finds what kernels did wrong.
  template <class T>
  std::vector<T> read() const {
    std::vector<T> to(bytes_ / sizeof(T));
    copy(to.data(), data_, bytes_);
    return to;
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    camfuse::cuda::check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, nullptr),
                              "cudaMemcpyAsync");
#ifdef __CUDACC__
    camfuse::cuda::check_cuda(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
#endif
  }

  std::size_t bytes_;
  void* memory_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace standalone
