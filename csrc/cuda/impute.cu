// impute on a CUDA device: the plan of the work, and its launch.
#include <algorithm>
#include <stdexcept>

#include "common/divide.h"
#include "cuda/impute.h"
#include "cuda/impute_kernel.cuh"
#include "cuda/launch.h"
#include "cuda/workspace.h"

namespace camfuse::cuda {
namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // cells, counted in 32 bits

// A block on each multiprocessor, but of large images only as many as this holds; a block takes
// about 38 bytes a pixel, 1.9 MB at 224 x 224. What each computes does not depend on how many there
// are.
constexpr int64_t kMostWorkspace = int64_t{1} << 30;

void set_grids(CudaImputeParams& p) {
  int64_t h = p.H, w = p.W, end = 0;
  for (p.grid_count = 0;; h = divide_up(h, 2), w = divide_up(w, 2)) {
    const int64_t stride = w + 1, origin = end + stride + 1;
    end += (h + 2) * stride + 1;
    if (end >= kMost) {
      throw std::invalid_argument(
          "image has more pixels than the CUDA kernel counts; call it on the CPU");
    }
    p.grids[p.grid_count++] = {static_cast<int>(h), static_cast<int>(w), static_cast<int>(stride),
                               static_cast<int>(origin), sweep_weight(h, w)};
    if (p.grid_count == 1) p.plane = static_cast<int>(end);
    if (h == 1 && w == 1) break;
  }
  p.cells = static_cast<int>(end);
}

// Places the arrays, or learns how much they take.
int64_t place(CudaImputeParams& p, void* memory) {
  const int64_t cells = int64_t{p.blocks} * p.cells, plane = int64_t{p.blocks} * p.plane;
  Workspace workspace(memory);
  for (float** array : {&p.inverse, &p.residual, &p.z, &p.product}) {
    workspace.add(array, cells * int64_t{sizeof(float)});
  }
  for (float** array : {&p.direction, &p.correction}) {
    workspace.add(array, plane * int64_t{sizeof(float)});
  }
  workspace.add(&p.values, plane * int64_t{sizeof(double)});
  return workspace.size();
}

}  // namespace

ImputePlan plan_impute(const ImputeArgs& args) {
  ImputePlan plan{};
  CudaImputeParams& p = plan.params;
  static_cast<ImputeArgs&>(p) = args;
  set_grids(p);
  p.systems = p.N * p.C;
  p.blocks = 1;
  const int64_t most = std::max<int64_t>(1, kMostWorkspace / place(p, nullptr));
  p.blocks =
      static_cast<int>(std::min({int64_t{current_device().multiprocessors}, p.systems, most}));
  plan.workspace_bytes = place(p, nullptr);
  plan.threads = static_cast<int>(std::min<int64_t>(p.H * kWarp, kImputeThreads));
  return plan;
}

void launch_impute(const ImputePlan& plan, void* workspace, void* stream) {
  CudaImputeParams p = plan.params;
  place(p, workspace);
  const auto on = static_cast<cudaStream_t>(stream);
  const size_t bytes = static_cast<size_t>(p.N) * sizeof(double);
  check_cuda(cudaMemsetAsync(p.residuals, 0, bytes, on), "cudaMemsetAsync");
  const auto kernel = p.dtype == Dtype::kF64 ? impute_all<double> : impute_all<float>;
  launch("impute_all", kernel, p.blocks, plan.threads, sizeof(ImputeSums), on, p);
}

}  // namespace camfuse::cuda
