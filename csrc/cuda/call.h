// What a registered op needs of torch before it launches: its device made current, the stream in
// use there, memory of torch's caching allocator. Nothing here synchronises.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "cuda/supported.h"

namespace camfuse::cuda {

class Call {
 public:
  // On the device of `tensor`, which must be one that the kernels were built for.
  explicit Call(const torch::stable::Tensor& tensor)
      : like_(tensor),
        device_(tensor.get_device_index()),
        guard_(device_),
        stream_(torch::stable::accelerator::getCurrentStream(device_)) {
    check_supported(device_);
  }

  // A cudaStream_t.
  void* stream() const { return stream_.nativeHandle(); }

  // A tensor on the device, not initialised. Torch reuses its memory in the order of the stream, so
  // a workspace may be dropped after the launches.
  torch::stable::Tensor allocate(std::initializer_list<int64_t> sizes,
                                 torch::headeronly::ScalarType dtype) const {
    return torch::stable::new_empty(like_, sizes, dtype);
  }

 private:
  const torch::stable::Tensor& like_;
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  torch::stable::accelerator::Stream stream_;
};

}  // namespace camfuse::cuda
