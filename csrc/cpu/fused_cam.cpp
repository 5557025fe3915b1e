// fused_cam on the CPU: layer_cam's maps, normalised and upsampled in the same call.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>

#include "args/layer_cam.h"
#include "args/new_tensor.h"
#include "args/validate.h"
#include "common/divide.h"
#include "cpu/fused_cam_params.h"
#include "cpu/isa.h"
#include "cpu/layer_cam.h"
#include "cpu/memory.h"

namespace camfuse {

#define CAMFUSE_DECLARE(ISA)                                                         \
  namespace ISA {                                                                    \
  void run_fused_cam(FusedCamStage, const FusedCamParams&, int64_t, int64_t, void*); \
  }
CAMFUSE_DECLARE(baseline)
CAMFUSE_DECLARE(v3)
CAMFUSE_DECLARE(v4)
#undef CAMFUSE_DECLARE

namespace {

constexpr int64_t kBand = 32;              // rows of a result
constexpr int64_t kGrainPixels = 1 << 14;  // fewer are not worth a second thread

// Bilinear with half-pixel centres, along one axis: which two elements, and the second's weight.
template <class Acc>
void set_taps(int64_t from, int64_t to, int64_t* first, int64_t* second, Acc* fraction) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  for (int64_t i = 0; i < to; ++i) {
    const double at = std::max(scale * (static_cast<double>(i) + 0.5) - 0.5, 0.0);
    first[i] = std::min(static_cast<int64_t>(at), from - 1);
    second[i] = std::min(first[i] + 1, from - 1);
    fraction[i] = static_cast<Acc>(at - static_cast<double>(first[i]));
  }
}

template <class Acc>
void set_both_taps(const FusedCamParams& p, int64_t* left, int64_t* right, void* x_fraction,
                   int64_t* upper, int64_t* lower, void* y_fraction) {
  set_taps(p.w, p.W, left, right, static_cast<Acc*>(x_fraction));
  set_taps(p.h, p.H, upper, lower, static_cast<Acc*>(y_fraction));
}

void run_stage(FusedCamStage stage, const FusedCamParams& p, int64_t tasks, int64_t task_pixels) {
  const int64_t row_bytes = p.W * (p.is_double ? 8 : 4);
  const auto run = [&](int64_t begin, int64_t end) {
    const AlignedBytes scratch = allocate(2 * row_bytes);
    CAMFUSE_DISPATCH_ISA(run_fused_cam, stage, p, begin, end, scratch.get());
  };
  torch::stable::parallel_for(0, tasks, 1 + kGrainPixels / task_pixels, run);
}

void compute_fused_cam(LayerCamArgs cam, FusedCamParams p) {
  const int64_t acc = acc_size(cam.dtype);
  int64_t *left, *right, *upper, *lower;
  void *ranges, *x_fraction, *y_fraction;
  Workspace workspace;
  workspace.add(&p.maps, p.B * p.h * p.w * acc);
  workspace.add(&ranges, p.B * 2 * acc);
  workspace.add(&left, p.W * 8);
  workspace.add(&right, p.W * 8);
  workspace.add(&upper, p.H * 8);
  workspace.add(&lower, p.H * 8);
  workspace.add(&x_fraction, p.W * acc);
  workspace.add(&y_fraction, p.H * acc);
  workspace.allocate();

  cam.maps = p.maps;
  cam.ranges = ranges;
  compute_layer_cam(cam);

  const auto set = p.is_double ? set_both_taps<double> : set_both_taps<float>;
  set(p, left, right, x_fraction, upper, lower, y_fraction);
  p.ranges = ranges;
  p.left = left, p.right = right, p.x_fraction = x_fraction;
  p.upper = upper, p.lower = lower, p.y_fraction = y_fraction;
  p.band = kBand;
  p.bands = divide_up(p.H, p.band);
  run_stage(FusedCamStage::kNormalize, p, p.B, p.h * p.w);
  run_stage(FusedCamStage::kUpsample, p, p.B * p.bands, p.band * p.W);
}

Tensor fused_cam(Tensor activations, std::optional<Tensor> gradients, int64_t rule,
                 std::vector<int64_t> size, std::optional<Tensor> weights, bool relu) {
  const std::vector<Rule> rules = checked_rules({rule});
  const LayerCamArgs cam = layer_cam_args(activations, gradients, rules, weights);
  check_size(cam, size);

  FusedCamParams p{};
  p.is_double = cam.dtype == Dtype::kF64;
  p.B = cam.B, p.h = cam.h, p.w = cam.w;
  p.H = size[0], p.W = size[1];
  p.relu = relu;
  Tensor result = new_tensor<3>({p.B, p.H, p.W}, map_dtype(cam.dtype));
  p.result = result.mutable_data_ptr();
  if (p.B > 0) compute_fused_cam(cam, p);
  return result;
}

}  // namespace
}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) { m.impl("fused_cam", TORCH_BOX(&camfuse::fused_cam)); }
