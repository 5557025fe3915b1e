// principal_map on the CPU: the plan of the work, the Lanczos iteration, dispatch, registration.
#include "args/principal_map.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "args/layer_cam.h"
#include "args/new_tensor.h"
#include "args/validate.h"
#include "common/divide.h"
#include "common/tridiagonal.h"
#include "cpu/isa.h"
#include "cpu/layouts.h"
#include "cpu/memory.h"
#include "cpu/principal_map_params.h"

namespace camfuse {

#define CAMFUSE_DECLARE(ISA)                                                                \
  namespace ISA {                                                                           \
  void run_principal_map(PrincipalMapStage, const PrincipalMapParams&, PrincipalMapSample&, \
                         int64_t, int64_t, void*);                                          \
  }
CAMFUSE_DECLARE(baseline)
CAMFUSE_DECLARE(v3)
CAMFUSE_DECLARE(v4)
#undef CAMFUSE_DECLARE

namespace {

constexpr int64_t kSlabBytes = 128 << 10;  // of A and G together
constexpr int64_t kGrainBytes = 96 << 10;  // less than this is not worth a second thread
constexpr int64_t kSampleBytes = 1 << 20;  // of a sample that is worth several threads
constexpr int64_t kMinSlabLines = 16;      // keeps the parts of slabs small against A and G
constexpr int64_t kTile = 4096;            // elements of a vector that one task makes

// One sample, from its terms to its map.
class Solver {
 public:
  Solver(const PrincipalMapParams& p, int64_t b) : p_(p) {
    s_.b = b;
    const int64_t acc = acc_size(p.dtype);
    const int64_t positions = std::max(p.h * p.w, p.padded) * acc;
    workspace_.add(&s_.factors, p.terms == Terms::kWeighted ? p.C * acc : 0);
    workspace_.add(&s_.means, p.C * acc);
    workspace_.add(&s_.offsets, p.rows ? p.C * acc : 0);
    workspace_.add(&s_.energies, positions);
    workspace_.add(&s_.values, positions);
    workspace_.add(&s_.parts, p.slabs * 2 * p.padded * acc);
    workspace_.add(&s_.basis, (p.most_steps + 2) * p.padded * acc);
    workspace_.add(&s_.slab_sums, p.slabs * 2 * 8);
    workspace_.add(&s_.tile_sums, p.tiles * (kMostSteps + 2) * 8);
    workspace_.allocate();
  }

  void solve() {
    if (!measure()) return run(PrincipalMapStage::kNotFinite, 1);
    start();
    iterate();
    combine();
    if (p_.rows) run(PrincipalMapStage::kProject, p_.slabs);
    run(PrincipalMapStage::kFinish, 1);
  }

 private:
  // Runs all tasks of a stage, on torch's threads where that is worth it.
  void run(PrincipalMapStage stage, int64_t tasks) {
    const int64_t scratch_bytes = reads_lines(stage) ? p_.scratch_bytes() : 0;
    const auto run_some = [&](int64_t begin, int64_t end) {
      AlignedBytes scratch;
      if (scratch_bytes > 0) scratch = allocate(scratch_bytes);
      CAMFUSE_DISPATCH_ISA(run_principal_map, stage, p_, s_, begin, end, scratch.get());
    };
    const int64_t sample = 2 * p_.lines * p_.length * element_size(p_.dtype);
    const int64_t bytes = reads_lines(stage) ? 2 * p_.slab * p_.length * element_size(p_.dtype)
                                             : (s_.steps + 2) * p_.tile * acc_size(p_.dtype);
    const int64_t grain = divide_up(kGrainBytes, bytes);
    if (tasks <= grain || sample < kSampleBytes) {
      run_some(0, tasks);
    } else {
      torch::stable::parallel_for(0, tasks, grain, run_some);
    }
  }

  double slab_sum(int which) const {
    double sum = 0;
    for (int64_t slab = 0; slab < p_.slabs; ++slab) sum += s_.slab_sums[2 * slab + which];
    return sum;
  }
  double tile_sum(int64_t which) const {
    double sum = 0;
    for (int64_t tile = 0; tile < p_.tiles; ++tile) {
      sum += s_.tile_sums[tile * (kMostSteps + 2) + which];
    }
    return sum;
  }

  // Means and scale; whether all terms are finite.
  bool measure() {
    if (p_.terms == Terms::kWeighted) run(PrincipalMapStage::kFactors, 1);
    run(PrincipalMapStage::kMeasure, p_.slabs);
    double largest = 0;
    for (int64_t slab = 0; slab < p_.slabs; ++slab) {
      const double top = s_.slab_sums[2 * slab];
      if (!(top <= largest)) largest = top;
      if (std::isnan(largest)) return false;
    }
    if (!std::isfinite(largest)) return false;
    if (p_.rows) run(PrincipalMapStage::kMeans, 1);
    const int most = p_.dtype == Dtype::kF64 ? 1000 : 120;
    const int exponent = largest > 0 ? std::ilogb(largest) : 0;
    s_.scale = std::ldexp(1.0, -std::clamp(exponent, -most, most));
    return true;
  }

  // The first vector of the basis: the energies, centred, or what the terms make of them.
  void start() {
    run(PrincipalMapStage::kEnergies, p_.slabs);
    run(PrincipalMapStage::kGather, p_.tiles);
    if (!p_.rows) s_.lengths[0] = std::sqrt(static_cast<double>(p_.h * p_.w));
    s_.steps = first();
    const int64_t length = p_.rows ? p_.C : p_.h * p_.w;
    const double size = std::sqrt(tile_sum(0) / static_cast<double>(length));
    s_.amplitude = size > 0 ? kNoiseShare * size : 1;
    run(PrincipalMapStage::kStart, p_.tiles);
    orthogonalize();
  }

  // Takes the basis vectors out of the newest, whose dots with them and itself are known: again
  // where little is left and much of that is rounding noise. What is noise even then is 0.
  void orthogonalize() {
    for (int round = 0; round < 2; ++round) {
      const double square = tile_sum(s_.steps);
      for (int64_t k = 0; k < s_.steps; ++k) {
        s_.weights[k] = s_.lengths[k] > 0 ? -tile_sum(k) / (s_.lengths[k] * s_.lengths[k]) : 0;
      }
      run(PrincipalMapStage::kOrthogonal, p_.tiles);
      const double left = tile_sum(0);
      s_.lengths[s_.steps] = left > 0.01 * square ? std::sqrt(left) : 0;
      if (left > 0.1 * square) return;
      if (round == 0) run(PrincipalMapStage::kDots, p_.tiles);
    }
  }

  // Basis vectors before the first that the matrix multiplies.
  int64_t first() const { return p_.rows ? 0 : 1; }

  // Grows basis and tridiagonal matrix until the vector of the largest eigenvalue is good enough.
  void iterate() {
    const double tolerance = principal_tolerance(p_.dtype);
    for (count_ = 1;; ++count_) {
      const int n = static_cast<int>(count_);
      run(PrincipalMapStage::kMultiply, p_.slabs);
      s_.coefficient_sum = slab_sum(1);
      double square = slab_sum(0);
      if (p_.rows) {
        square -= s_.coefficient_sum * s_.coefficient_sum / static_cast<double>(p_.h * p_.w);
      }
      s_.diagonal[n - 1] = std::max(square, 0.0);
      const double newest = s_.lengths[s_.steps];
      s_.weights[0] = newest > 0 ? s_.diagonal[n - 1] / newest : 0;
      s_.weights[1] = n > 1 && newest > 0 ? newest / s_.lengths[s_.steps - 1] : 0;
      run(PrincipalMapStage::kNext, p_.tiles);
      ++s_.steps;
      orthogonalize();
      s_.beside[n - 1] = s_.lengths[s_.steps];
      value_ = largest_eigenvalue(s_.diagonal, s_.beside, n);
      top_eigenvector(s_.diagonal, s_.beside, n, value_, vector_, pivots_);
      if (count_ == p_.most_steps) return;
      if (is_close(s_.diagonal, s_.beside, n, s_.beside[n - 1], value_, vector_, tolerance)) return;
    }
  }

  // The singular vector along a line; where lines are planes, times the singular value.
  void combine() {
    const double factor = p_.rows ? 1 : std::sqrt(value_) / s_.scale;
    for (int64_t k = 0; k < first(); ++k) s_.weights[k] = 0;
    for (int64_t k = 0; k < count_; ++k) {
      const double length = s_.lengths[first() + k];
      s_.weights[first() + k] = length > 0 ? factor * vector_[k] / length : 0;
    }
    s_.steps = first() + count_ - 1;
    run(PrincipalMapStage::kCombine, p_.tiles);
  }

  const PrincipalMapParams& p_;
  PrincipalMapSample s_{};
  Workspace workspace_;
  int64_t count_ = 0;  // of steps, the size of the tridiagonal matrix
  double value_ = 0;   // its largest eigenvalue
  double vector_[kMostSteps], pivots_[kMostSteps];
};

void set_plan(PrincipalMapParams& p) {
  const bool has_g = p.g.data != nullptr;
  const bool planar = is_planar(p, p.a) && (!has_g || is_planar(p, p.g));
  p.rows = !planar && is_rows(p, p.a) && (!has_g || is_rows(p, p.g));
  const int64_t positions = p.h * p.w;
  if (p.rows) {
    for (LayerView* view : {&p.a, &p.g}) {
      if (p.w == 1) view->column = view->row;  // the distance of neighbouring positions
    }
  } else {
    p.packs_a = !is_planar(p, p.a);
    p.packs_g = has_g && !is_planar(p, p.g);
  }
  p.in_place =
      p.terms == Terms::kActivation && acc_size(p.dtype) == element_size(p.dtype) && !p.packs_a;
  p.lines = p.rows ? positions : p.C;
  p.length = p.rows ? p.C : std::max(positions, kMinPlane);
  p.padded = divide_up(p.length, kMinPlane) * kMinPlane;
  const int64_t line_bytes = (has_g ? 2 : 1) * p.length * element_size(p.dtype);
  const int64_t slab = std::max(divide_up(kSlabBytes, line_bytes), kMinSlabLines);
  p.slab = divide_up(divide_up(p.lines, divide_up(p.lines, slab)), kGroup) * kGroup;
  p.slabs = divide_up(p.lines, p.slab);
  p.tile = kTile;
  p.tiles = divide_up(p.padded, p.tile);
  // The rank of the matrix, and one for what of the start it maps to 0.
  p.most_steps = std::min<int64_t>(kMostSteps, std::min(p.C, positions) + 1);
}

void compute_principal_map(PrincipalMapParams& p) {
  if (p.B == 0) return;
  set_plan(p);
  const auto solve = [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) Solver(p, b).solve();
  };
  const int64_t sample = p.lines * p.length * element_size(p.dtype);
  if (p.B > 1 && (p.B >= torch::stable::get_num_threads() || sample < kSampleBytes)) {
    torch::stable::parallel_for(0, p.B, divide_up(kGrainBytes, sample), solve);
  } else {
    solve(0, p.B);
  }
}

std::tuple<Tensor, Tensor, Tensor> principal_map(Tensor activations,
                                                 std::optional<Tensor> gradients, int64_t terms,
                                                 std::optional<Tensor> weights) {
  PrincipalMapParams p{};
  static_cast<PrincipalMapArgs&>(p) = principal_map_args(activations, gradients, terms, weights);
  const ScalarType dtype = map_dtype(p.dtype);
  Tensor maps = new_tensor<3>({p.B, p.h, p.w}, dtype);
  Tensor ranges = new_tensor<2>({p.B, 2}, dtype);
  Tensor scales = new_tensor<1>({p.B}, dtype);
  p.maps = maps.mutable_data_ptr();
  p.ranges = ranges.mutable_data_ptr();
  p.scales = scales.mutable_data_ptr();
  compute_principal_map(p);
  return {maps, ranges, scales};
}

}  // namespace
}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) {
  m.impl("principal_map", TORCH_BOX(&camfuse::principal_map));
}
