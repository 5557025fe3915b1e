// principal_map on a CUDA device: the plan of the work, and its launch.
#include <algorithm>
#include <stdexcept>

#include "cuda/launch.h"
#include "cuda/principal_map.h"
#include "cuda/principal_map_kernel.cuh"
#include "cuda/workspace.h"

namespace camfuse::cuda {
namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // positions, channels: counted in 32 bits

bool is_planar(const PrincipalMapArgs& args, const LayerView& view) {
  return (args.w == 1 || view.column == 1) && (args.h == 1 || view.row == args.w);
}

bool has_rows(const PrincipalMapArgs& args, const LayerView& view) {
  return view.data == nullptr || (view.channel == 1 && !is_planar(args, view));
}

bool is_even(const PrincipalMapArgs& args, const LayerView& view) {
  return args.h == 1 || args.w == 1 || view.row == args.w * view.column;
}

// Positions that lie evenly apart are one long row.
void join_rows(CudaPrincipalMapParams& p) {
  if (!is_even(p, p.a) || !is_even(p, p.g)) return;
  for (LayerView* view : {&p.a, &p.g}) {
    if (p.w == 1) view->column = view->row;
  }
  p.width = p.positions;
}

// Places the arrays, or learns how much they take.
int64_t place(CudaPrincipalMapParams& p, void* memory) {
  const int64_t acc = acc_size(p.dtype);
  Workspace workspace(memory);
  workspace.add(&p.means, p.B * p.C * acc);
  workspace.add(&p.offsets, p.rows ? p.B * p.C * acc : 0);
  workspace.add(&p.energies, p.B * p.positions * acc);
  workspace.add(&p.values, p.B * p.positions * acc);
  workspace.add(&p.coefficients, p.B * p.lines * acc);
  workspace.add(&p.basis, p.B * (p.most_steps + 2) * p.length * acc);
  return workspace.size();
}

template <class T>
void launch_for(const CudaPrincipalMapParams& p, cudaStream_t stream) {
  const auto kernel = p.rows ? find_principal<T, true> : find_principal<T, false>;
  launch("find_principal", kernel, p.B, kPrincipalThreads, sizeof(PrincipalState<Acc<T>>), stream,
         p);
}

}  // namespace

PrincipalMapPlan plan_principal_map(const PrincipalMapArgs& args) {
  PrincipalMapPlan plan{};
  CudaPrincipalMapParams& p = plan.params;
  static_cast<PrincipalMapArgs&>(p) = args;
  const int64_t positions = args.h * args.w;
  if (positions >= kMost || args.C >= kMost) {
    throw std::invalid_argument(
        "activations have more channels or positions than the CUDA kernel counts; call it on the "
        "CPU");
  }
  p.weighted = p.terms == Terms::kWeighted;
  p.has_gradients = reads_gradients(p.terms);
  p.rectifies_gradients = p.terms == Terms::kPositiveGradient;
  p.magnifies_gradients = p.terms == Terms::kGradientMagnitude;
  p.rectifies_products = p.terms == Terms::kPositiveProduct;
  p.rows = has_rows(p, p.a) && has_rows(p, p.g);
  p.positions = static_cast<int>(positions);
  p.channels = static_cast<int>(p.C);
  p.width = static_cast<int>(p.w);
  join_rows(p);
  p.lines = p.rows ? p.positions : p.channels;
  p.length = p.rows ? p.channels : p.positions;
  // The rank of the matrix, and one for what of the start it maps to 0.
  p.most_steps = static_cast<int>(std::min<int64_t>(kMostSteps, std::min(p.C, positions) + 1));
  p.tolerance = principal_tolerance(p.dtype);
  plan.workspace_bytes = place(p, nullptr);
  return plan;
}

void launch_principal_map(const PrincipalMapPlan& plan, void* workspace, void* stream) {
  CudaPrincipalMapParams p = plan.params;
  place(p, workspace);
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p.dtype) {
    case Dtype::kF64: launch_for<double>(p, on); break;
    case Dtype::kF32: launch_for<float>(p, on); break;
    case Dtype::kBF16: launch_for<BFloat16>(p, on); break;
    case Dtype::kF16: launch_for<Half>(p, on); break;
  }
}

}  // namespace camfuse::cuda
