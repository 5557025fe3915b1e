// Uninitialised contiguous tensors on the CPU, without a round through the dispatcher: an op that
// is called once per layer must not cost more than its layer.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

namespace camfuse {

template <std::size_t N>
torch::stable::Tensor new_tensor(const std::array<int64_t, N>& sizes,
                                 torch::headeronly::ScalarType dtype) {
  std::array<int64_t, N> strides;
  int64_t stride = 1;
  for (std::size_t i = N; i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 1 ? sizes[i] : 1;
  }
  const int32_t type = dtype == torch::headeronly::ScalarType::Double  ? aoti_torch_dtype_float64()
                       : dtype == torch::headeronly::ScalarType::Float ? aoti_torch_dtype_float32()
                                                                       : aoti_torch_dtype_uint8();
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(N), sizes.data(),
                                                         strides.data(), type,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return torch::stable::Tensor(handle);
}

}  // namespace camfuse
