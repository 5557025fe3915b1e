#include "args/principal_map.h"

#include <algorithm>

#include "args/layer_view.h"
#include "args/validate.h"

namespace camfuse {
namespace {

constexpr int64_t kLongestPadded = 16;  // backends may pad planes to so many positions

}  // namespace

PrincipalMapArgs principal_map_args(const Tensor& activations,
                                    const std::optional<Tensor>& gradients, int64_t terms,
                                    const std::optional<Tensor>& weights) {
  check(terms >= 0 && terms < kTermsCount, "terms must be a number from 0 to ", kTermsCount - 1,
        ", got ", terms);
  check_activations(activations);
  const auto shape = activations.sizes();
  PrincipalMapArgs p{};
  p.dtype = input_dtype(activations);
  p.terms = static_cast<Terms>(terms);
  p.B = shape[0], p.C = shape[1], p.h = shape[2], p.w = shape[3];
  checked_product("activations", p.B, p.C, p.h, p.w);
  checked_product("activations", std::max(p.C, std::max(p.h * p.w, kLongestPadded)), kMostSteps);
  p.a = view_of(activations);

  const bool wants_gradients = reads_gradients(p.terms);
  check(gradients.has_value() == wants_gradients,
        wants_gradients ? "gradients must be given for these terms, got None"
                        : "gradients must be None for terms 'activation' and 'weighted', got a "
                          "tensor");
  if (gradients) {
    check_shape("gradients", *gradients, {p.B, p.C, p.h, p.w}, "activations");
    check_like("gradients", *gradients, activations, "activations");
    p.g = view_of(*gradients);
  }

  const bool weighted = p.terms == Terms::kWeighted;
  check(weights.has_value() == weighted,
        weighted ? "weights must be given for terms 'weighted', got None"
                 : "weights must be None unless terms are 'weighted', got a tensor");
  if (weights) {
    check_shape("weights", *weights, {p.B, p.C}, "batch and channels");
    check_like("weights", *weights, activations, "activations");
    p.weights = {weights->const_data_ptr(), weights->stride(0), weights->stride(1), 0, 0};
  }
  return p;
}

}  // namespace camfuse
