// layer_cam's two halves, for the ops built on it: checked arguments, then maps.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "common/layer_cam_params.h"

namespace camfuse {

// The rules of these numbers, or an error.
std::vector<Rule> checked_rules(const std::vector<int64_t>& codes);

// Shape, dtype, strides and rules, all checked; the rest of the struct is empty. Keeps pointers
// into the arguments.
LayerCamParams layer_cam_params(const torch::stable::Tensor& activations,
                                const std::optional<torch::stable::Tensor>& gradients,
                                const std::vector<Rule>& rules,
                                const std::optional<torch::stable::Tensor>& weights);

// Fills p.maps and p.ranges, which the caller has set.
void compute_layer_cam(LayerCamParams p);

// The dtype of maps and ranges.
inline torch::headeronly::ScalarType map_dtype(Dtype input) {
  return input == Dtype::kF64 ? torch::headeronly::ScalarType::Double
                              : torch::headeronly::ScalarType::Float;
}
inline int64_t map_element_size(Dtype input) { return input == Dtype::kF64 ? 8 : 4; }

}  // namespace camfuse
