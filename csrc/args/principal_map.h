// The arguments of principal_map, checked once for every backend.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "common/principal_map_args.h"

namespace camfuse {

// Everything is checked; maps, ranges and scales are the caller's to set. Keeps pointers into the
// arguments.
PrincipalMapArgs principal_map_args(const torch::stable::Tensor& activations,
                                    const std::optional<torch::stable::Tensor>& gradients,
                                    int64_t terms,
                                    const std::optional<torch::stable::Tensor>& weights);

}  // namespace camfuse
