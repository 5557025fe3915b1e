// impute: a block solves one channel of one mask after another, in one launch.
//
// Channels of a mask are systems of their own although they share its grids: setting those up costs
// less than a step of conjugate gradients, and few masks then fill three times as much of the
// device. Residuals are in f64, corrections in f32, as on the CPU (csrc/cpu/impute_kernel.h), whose
// results are met within the tolerance: sums are taken in another order here. Torch-free.
#pragma once

#include "cuda/impute_grids.cuh"
#include "cuda/impute_sums.cuh"

namespace camfuse::cuda {

template <class T>
struct ImputeBlock {
  const CudaImputeParams& p;
  const CudaImputeGrid& grid;  // the image's
  const ImputePlanes at;
  ImputeSums& sums;
  int64_t n, c;         // the system's mask and channel
  double removed;       // pixels
  double middle, size;  // of the range of the kept pixels

  __device__ __forceinline__ ImputeBlock(const CudaImputeParams& params, ImputeSums& shared)
      : p(params), grid(p.grids[0]), at(p, blockIdx.x), sums(shared) {
    const auto clear = [](auto* values, int count) {
      for (int i = threadIdx.x; i < count; i += blockDim.x) values[i] = 0;
    };
    for (float* planes : {at.inverse, at.residual, at.z, at.product}) clear(planes, p.cells);
    for (float* plane : {at.direction, at.correction}) clear(plane, p.plane);
    clear(at.values, p.plane);
    __syncthreads();
  }

  __device__ __forceinline__ void run(int64_t system) {
    n = system / p.C, c = system % p.C;
    set_up();
    double residual = 0;
    const bool is_whole = removed == static_cast<double>(grid.h) * grid.w;
    if (is_whole) {
      middle = size = 0;
    } else {
      measure();
      if (!(size - size == 0)) {  // not finite: neither is the solution
        middle = size - size;
      } else if (size > 0 && removed > 0) {
        normalize();
        residual = solve();
      }
    }
    finish();
    // Residuals are at least 0, or NaN: their bits have their order, with NaN above all.
    if (threadIdx.x == 0) {
      atomicMax(reinterpret_cast<unsigned long long*>(p.residuals) + n,
                static_cast<unsigned long long>(__double_as_longlong(residual)));
    }
  }

  __device__ __forceinline__ T pixel(int y, int x) const {
    const LayerView& view = p.image;
    return static_cast<const T*>(view.data)[c * view.channel + y * view.row + x * view.column];
  }
  __device__ __forceinline__ bool is_removed(int i) const { return at.inverse[i] != 0; }

  // How the removed pixels relate to each other.
  __device__ __forceinline__ void set_up() {
    const LayerView& view = p.masks;
    const auto* const mask = static_cast<const unsigned char*>(view.data) + n * view.batch;
    int count = 0;
    each_cell(grid, [&](int y, int x, int i) {
      const bool one = mask[y * view.row + x * view.column] != 0;
      const int diagonal = line_weight(y, grid.h) * line_weight(x, grid.w) - 4;
      at.inverse[i] = one ? 1 / static_cast<float>(diagonal) : 0.0f;
      at.residual[i] = one ? 0.0f : 1 / kSeriesResistance;
      count += one;
    });
    removed = block_sum(sums, count);
    for (int k = 0; k + 1 < p.grid_count; ++k) {
      set_up_coarser(p.grids[k], p.grids[k + 1], at);
      __syncthreads();
    }
  }

  // The range of the kept pixels. A size that is not finite stands for pixels that are not.
  __device__ __forceinline__ void measure() {
    double low = HUGE_VAL, high = -HUGE_VAL;
    each_cell(grid, [&](int y, int x, int i) {
      if (is_removed(i)) return;
      const auto value = static_cast<double>(pixel(y, x));
      if (value < low || value != value) low = value;
      if (value > high || value != value) high = value;
    });
    low = -block_most(sums, -low), high = block_most(sums, high);
    middle = low / 2 + high / 2, size = high - low;
  }

  __device__ __forceinline__ void normalize() const {
    each_cell(grid, [&](int y, int x, int i) {
      const auto value = static_cast<double>(pixel(y, x));
      at.values[i] = is_removed(i) ? 0.0 : (value - middle) / size;
      at.correction[i] = 0;
    });
    __syncthreads();
  }

  // The residual of `values`, in f64, and the first sweep over it.
  __device__ __forceinline__ void take_residual() const {
    each_cell(grid, [&](int y, int x, int i) {
      const int weights = line_weight(y, grid.h) * line_weight(x, grid.w);
      const double rest = filtered(at.values + i, grid.stride) - weights * at.values[i];
      const float r = is_removed(i) ? static_cast<float>(rest) : 0.0f;
      at.residual[i] = r;
      at.z[i] = grid.sweep * at.inverse[i] * r;
    });
    __syncthreads();
  }

  // direction = z + keep * direction; product = A direction. Returns direction . product.
  __device__ __forceinline__ double multiply_direction(float keep) const {
    each_cell(grid, [&](int, int, int i) {
      at.direction[i] = keep == 0 ? at.z[i] : at.z[i] + keep * at.direction[i];
    });
    __syncthreads();
    float energy = 0;
    each_cell(grid, [&](int y, int x, int i) {
      const int weights = line_weight(y, grid.h) * line_weight(x, grid.w);
      const float here = at.direction[i];
      const float one =
          static_cast<float>(weights) * here - filtered(at.direction + i, grid.stride);
      const float product = is_removed(i) ? one : 0.0f;
      at.product[i] = product;
      energy += here * product;
    });
    return block_sum(sums, static_cast<double>(energy));
  }

  // Goes `step` in the direction, and makes the first sweep over what is left.
  __device__ __forceinline__ void advance(float step) const {
    each_cell(grid, [&](int, int, int i) {
      at.correction[i] += step * at.direction[i];
      const float r = at.residual[i] - step * at.product[i];
      at.residual[i] = r;
      at.z[i] = grid.sweep * at.inverse[i] * r;
    });
    __syncthreads();
  }

  // Adds the round's correction to `values`.
  __device__ __forceinline__ void take_correction() const {
    each_cell(grid, [&](int, int, int i) {
      at.values[i] += static_cast<double>(at.correction[i]);
      at.correction[i] = 0;
    });
    __syncthreads();
  }

  static __device__ __forceinline__ double error(double square) {
    return square == 0 ? 0.0 : sqrt(square / 12);  // not -0
  }

  // residual . z for the new z.
  __device__ __forceinline__ double preconditioned() const {
    return block_sum(sums, static_cast<double>(precondition(p, at)));
  }

  // Corrects `values` until they are good enough; returns how good.
  __device__ __forceinline__ double solve() const {
    for (int round = 0;; ++round) {
      take_residual();
      double square = preconditioned();
      const double first = error(square);
      if (!(first > p.tolerance) || round == kMostImputeRounds) return first;
      const double enough = max(kRoundSlack * p.tolerance, kRoundGain * first);
      double keep = 0;  // of the last direction
      for (int step = 0; step < kMostImputeSteps; ++step) {
        const double energy = multiply_direction(static_cast<float>(keep));
        if (!(energy > 0)) break;
        advance(static_cast<float>(square / energy));
        const double before = square;
        square = preconditioned();
        if (!(error(square) > enough)) break;
        keep = square / before;
      }
      take_correction();
    }
  }

  __device__ __forceinline__ void finish() const {
    T* const image = static_cast<T*>(p.images) + (n * p.C + c) * p.H * p.W;
    each_cell(grid, [&](int y, int x, int i) {
      // Where nothing was solved, all removed pixels are the middle.
      const double value = size > 0 ? middle + size * at.values[i] : middle;
      image[int64_t{y} * grid.w + x] = is_removed(i) ? static_cast<T>(value) : pixel(y, x);
    });
  }
};

// Block b: systems b, b + blocks, and so on.
template <class T>
__global__ void __launch_bounds__(kImputeThreads, 1)
    impute_all(const __grid_constant__ CudaImputeParams p) {
  ImputeBlock<T> block(p, *shared_memory<ImputeSums>());
  for (int64_t system = blockIdx.x; system < p.systems; system += p.blocks) block.run(system);
}

}  // namespace camfuse::cuda
