// The arguments of impute, checked once for every backend.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "common/impute_args.h"

namespace camfuse {

// Everything is checked; images and residuals are the caller's to set. Keeps pointers into the
// arguments.
ImputeArgs impute_args(const torch::stable::Tensor& image, const torch::stable::Tensor& masks,
                       double tolerance);

}  // namespace camfuse
