// impute on the CPU: memory, threads, dispatch, registration.
#include "args/impute.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "args/layer_cam.h"
#include "args/new_tensor.h"
#include "args/validate.h"
#include "cpu/impute_params.h"
#include "cpu/isa.h"
#include "cpu/memory.h"

namespace camfuse {

#define CAMFUSE_DECLARE(ISA)                                                            \
  namespace ISA {                                                                       \
  double run_impute(const ImputeParams&, const ImputeWork&, int64_t, int64_t, int64_t); \
  }
CAMFUSE_DECLARE(baseline)
CAMFUSE_DECLARE(v3)
CAMFUSE_DECLARE(v4)
#undef CAMFUSE_DECLARE

namespace {

// What one task needs, zero at first.
class Memory {
 public:
  explicit Memory(const ImputeParams& p) {
    const int64_t stride = p.grids[0].stride, lines = kImputeLines * stride + 2 * kPlaneHalo;
    add(&work_.inverse, p.cells);
    add(&work_.residual, p.cells);
    add(&work_.z, p.cells);
    add(&work_.direction, p.plane);
    add(&work_.product, p.plane);
    add(&work_.correction, p.plane);
    add(&work_.values, p.plane);
    add(&work_.lines, lines);
    add(&work_.wide_line, stride + 2 * kPlaneHalo);
    add(&work_.columns, stride);
    add(&work_.wide_columns, stride);
    workspace_.allocate();
    for (int i = 0; i < count_; ++i) std::memset(*arrays_[i].at, 0, arrays_[i].bytes);
    for (int64_t x = 0; x < p.W; ++x) {
      work_.columns[x] = static_cast<float>(line_weight(x, p.W));
      work_.wide_columns[x] = line_weight(x, p.W);
    }
  }
  const ImputeWork& work() const { return work_; }

 private:
  template <class Acc>
  void add(Acc** array, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(Acc));
    workspace_.add(array, bytes);
    arrays_[count_++] = {reinterpret_cast<void**>(array), static_cast<std::size_t>(bytes)};
  }
  struct Array {
    void** at;
    std::size_t bytes;
  };
  ImputeWork work_{};
  Workspace workspace_;
  Array arrays_[11];
  int count_ = 0;
};

void compute_impute(ImputeParams& p) {
  set_grids(p);
  std::fill_n(p.residuals, p.N, 0.0);
  // Threads share the masks, or the channels where there are fewer masks than threads.
  const int64_t parts = p.N < torch::stable::get_num_threads() ? p.C : 1;
  std::vector<double> residuals(static_cast<std::size_t>(p.N * parts));
  torch::stable::parallel_for(0, p.N * parts, 1, [&](int64_t begin, int64_t end) {
    const Memory memory(p);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / parts, c = i % parts;
      residuals[static_cast<std::size_t>(i)] = CAMFUSE_DISPATCH_ISA(
          run_impute, p, memory.work(), n, parts == 1 ? 0 : c, parts == 1 ? p.C : c + 1);
    }
  });
  for (int64_t i = 0; i < p.N * parts; ++i) {
    const double one = residuals[static_cast<std::size_t>(i)];
    double& residual = p.residuals[i / parts];
    if (!(one <= residual)) residual = one;  // NaN stays
  }
}

std::tuple<Tensor, Tensor> impute(Tensor image, Tensor masks, double tolerance) {
  ImputeParams p{};
  static_cast<ImputeArgs&>(p) = impute_args(image, masks, tolerance);
  Tensor images = new_tensor<4>({p.N, p.C, p.H, p.W}, map_dtype(p.dtype));
  Tensor residuals = new_tensor<1>({p.N}, ScalarType::Double);
  p.images = images.mutable_data_ptr();
  p.residuals = static_cast<double*>(residuals.mutable_data_ptr());
  if (p.N > 0) compute_impute(p);
  return {images, residuals};
}

}  // namespace
}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) { m.impl("impute", TORCH_BOX(&camfuse::impute)); }
