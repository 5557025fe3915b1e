// A layer's tensors as plain data.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "args/validate.h"
#include "common/layer_cam_args.h"

namespace camfuse {

inline Dtype input_dtype(const Tensor& activations) {
  switch (activations.scalar_type()) {
    case ScalarType::Double: return Dtype::kF64;
    case ScalarType::Float: return Dtype::kF32;
    case ScalarType::BFloat16: return Dtype::kBF16;
    default: return Dtype::kF16;
  }
}

// Of a tensor [B, C, h, w].
inline LayerView view_of(const Tensor& tensor) {
  const auto strides = tensor.strides();
  return {tensor.const_data_ptr(), strides[0], strides[1], strides[2], strides[3]};
}

// Shape and dtype of [B, C, h, w], or an error.
inline void check_activations(const Tensor& activations) {
  const auto shape = activations.sizes();
  check(shape.size() == 4, "activations must have 4 dimensions [B, C, h, w], got ",
        shape_text(shape));
  check(shape[1] > 0 && shape[2] > 0 && shape[3] > 0,
        "activations must have channels and positions, got ", shape_text(shape));
  check_dtype("activations", activations,
              {ScalarType::Double, ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
}

}  // namespace camfuse
