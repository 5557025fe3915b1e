// Lays arrays out in one allocation of device memory. Torch-free.
#pragma once

#include <stdint.h>

namespace camfuse::cuda {

// Run once without memory to learn how much is needed, and once with it to place the arrays.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}

  template <class T>
  void add(T** array, int64_t bytes) {
    if (memory_ != nullptr) *array = reinterpret_cast<T*>(memory_ + size_);
    size_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  void add(void** array, int64_t bytes) { add<void>(array, bytes); }

  int64_t size() const { return size_; }

 private:
  static constexpr int64_t kAlignment = 256;
  unsigned char* memory_;
  int64_t size_ = 0;
};

}  // namespace camfuse::cuda
