// principal_map on a CUDA device: the plan of the work, and its launch.
#include <algorithm>
#include <stdexcept>

#include "common/divide.h"
#include "cuda/launch.h"
#include "cuda/principal_map.h"
#include "cuda/principal_map_kernel.cuh"
#include "cuda/principal_map_terms.cuh"
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
  workspace.add(&p.made_terms, p.in_place ? 0 : p.B * p.C * p.positions * acc);
  workspace.add(&p.means, p.B * p.C * acc);
  workspace.add(&p.offsets, p.rows ? p.B * p.C * acc : 0);
  workspace.add(&p.energies, p.B * p.positions * acc);
  workspace.add(&p.values, p.B * p.positions * acc);
  workspace.add(&p.coefficients, p.B * p.lines * acc);
  workspace.add(&p.basis, p.B * (p.most_steps + 2) * p.length * acc);
  return workspace.size();
}

// Whether lines can be read as they are; after join_rows().
bool is_in_place(const CudaPrincipalMapParams& p) {
  return p.terms == Terms::kActivation && acc_size(p.dtype) == element_size(p.dtype) &&
         (p.rows ? p.width == p.positions : is_planar(p, p.a));
}

template <class T>
void launch_terms(const CudaPrincipalMapParams& p, cudaStream_t stream) {
  const int64_t blocks = p.B * divide_up(p.lines, kTermsLines);
  launch("make_terms", make_terms<T>, blocks, kTermsThreads, 0, stream, p);
}

void launch_terms(const CudaPrincipalMapParams& p, cudaStream_t stream) {
  switch (p.dtype) {
    case Dtype::kF64: launch_terms<double>(p, stream); break;
    case Dtype::kF32: launch_terms<float>(p, stream); break;
    case Dtype::kBF16: launch_terms<BFloat16>(p, stream); break;
    case Dtype::kF16: launch_terms<Half>(p, stream); break;
  }
}

template <class A>
void launch_for(const CudaPrincipalMapParams& p, cudaStream_t stream) {
  const auto kernel = p.rows ? find_principal<A, true> : find_principal<A, false>;
  launch("find_principal", kernel, p.B, kPrincipalThreads, sizeof(PrincipalState<A>), stream, p);
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
  p.in_place = is_in_place(p);
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
  if (p.in_place) {
    p.from = {p.a.data, p.a.batch, p.rows ? p.a.column : p.a.channel};
  } else {
    p.from = {p.made_terms, p.C * p.positions, p.length};
    launch_terms(p, on);
  }
  p.dtype == Dtype::kF64 ? launch_for<double>(p, on) : launch_for<float>(p, on);
}

}  // namespace camfuse::cuda
