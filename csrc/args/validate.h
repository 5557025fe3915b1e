// Checks of tensor arguments whose messages name the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "common/check.h"

namespace camfuse {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The name Python gives a dtype, for those a user is likely to meet.
inline std::string dtype_text(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double: return "float64";
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    default: return torch::headeronly::toString(dtype);
  }
}

inline void check_dtype(const char* name, const Tensor& tensor,
                        std::initializer_list<ScalarType> allowed) {
  const ScalarType dtype = tensor.scalar_type();
  std::string expected;
  for (ScalarType candidate : allowed) {
    if (dtype == candidate) return;
    expected += (expected.empty() ? "" : " or ") + dtype_text(candidate);
  }
  check(false, name, " must be ", expected, ", got ", dtype_text(dtype));
}

// `expected_as` says whose shape, dtype or device `expected` is: "activations".
inline void check_shape(const char* name, const Tensor& tensor,
                        const std::vector<int64_t>& expected, const char* expected_as) {
  const auto sizes = tensor.sizes();
  const bool same = sizes.size() == expected.size() &&
                    std::equal(expected.begin(), expected.end(), sizes.begin());
  check(same, name, " must have the shape of ", expected_as, ": expected ", shape_text(expected),
        ", got ", shape_text(sizes));
}

// "cpu" or "cuda:0", as Python writes a device.
inline std::string device_text(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

inline void check_device(const char* name, const Tensor& tensor, const Tensor& other,
                         const char* other_name) {
  check(tensor.device() == other.device(), name, " must be on the device of ", other_name,
        ": expected ", device_text(other), ", got ", device_text(tensor));
}

inline void check_like(const char* name, const Tensor& tensor, const Tensor& other,
                       const char* other_name) {
  check(tensor.scalar_type() == other.scalar_type(), name, " must have the dtype of ", other_name,
        ": expected ", dtype_text(other.scalar_type()), ", got ", dtype_text(tensor.scalar_type()));
  check_device(name, tensor, other, other_name);
}

}  // namespace camfuse
