#include "args/layer_cam.h"

#include <algorithm>

#include "args/layer_view.h"
#include "args/validate.h"

namespace camfuse {
namespace {

constexpr int64_t kLongestPadded = 16;  // backends may pad planes to so many positions

bool is_weighted(Rule rule) { return base_of(rule) == Rule::kWeighted; }

}  // namespace

std::vector<Rule> checked_rules(const std::vector<int64_t>& codes) {
  check(!codes.empty(), "rules must name at least one rule, got none");
  std::vector<Rule> rules;
  rules.reserve(codes.size());
  for (int64_t code : codes) {
    check(code >= 0 && code < kRuleCount, "rules must be numbers from 0 to ", kRuleCount - 1,
          ", got ", code);
    rules.push_back(static_cast<Rule>(code));
  }
  return rules;
}

LayerCamArgs layer_cam_args(const Tensor& activations, const std::optional<Tensor>& gradients,
                            const std::vector<Rule>& rules, const std::optional<Tensor>& weights) {
  check_activations(activations);
  const auto shape = activations.sizes();
  LayerCamArgs p{};
  p.dtype = input_dtype(activations);
  p.B = shape[0], p.C = shape[1], p.h = shape[2], p.w = shape[3];
  p.rules = rules.data();
  p.R = static_cast<int64_t>(rules.size());
  for (Rule rule : rules) p.uses[static_cast<int>(base_of(rule))] = true;
  checked_product("activations", p.B, p.C, p.h, p.w);
  checked_product("maps of all rules", p.R, p.B, p.C, std::max(p.h * p.w, kLongestPadded));
  p.a = view_of(activations);

  const bool all_weighted = std::all_of(rules.begin(), rules.end(), is_weighted);
  if (gradients) {
    check_shape("gradients", *gradients, {p.B, p.C, p.h, p.w}, "activations");
    check_like("gradients", *gradients, activations, "activations");
    if (!all_weighted) p.g = view_of(*gradients);
  } else {
    check(all_weighted, "gradients must be given unless every rule is 'weighted', got None");
  }

  const bool weighted = p.uses[static_cast<int>(Rule::kWeighted)];
  check(weights.has_value() == weighted,
        weighted ? "weights must be given for rule 'weighted', got None"
                 : "weights must be None unless rules hold 'weighted', got a tensor");
  if (weights) {
    check_shape("weights", *weights, {p.B, p.C}, "batch and channels");
    check_like("weights", *weights, activations, "activations");
    p.weights = {weights->const_data_ptr(), weights->stride(0), weights->stride(1), 0, 0};
  }
  return p;
}

void check_size(const LayerCamArgs& args, const std::vector<int64_t>& size) {
  check(size.size() == 2 && size[0] > 0 && size[1] > 0,
        "size must be two positive numbers (H, W), got ", shape_text(size));
  checked_product("size", std::max<int64_t>(args.B, 1), size[0], size[1]);
}

}  // namespace camfuse
