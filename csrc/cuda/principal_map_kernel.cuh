// principal_map: a block finds the first principal component of its sample's terms, in one launch.
//
// Note: [Lanczos]
// X is the matrix of centred terms, [positions, C]. Lines are its columns (planes of channels), or
// its rows where the channels of a position lie together; vectors run along a line. An orthogonal
// basis is built of what repeated multiplication by M makes of a start, in which M is tridiagonal:
// M q = sum over lines of line (line . q), which is X X' q or X' X q. Of planes, the first basis
// vector is constant, so that everything made orthogonal to it is centred. Basis vectors are kept
// with their lengths. The CPU does the same, csrc/cpu/principal_map_kernel.h. Torch-free.
#pragma once

#include "common/tridiagonal.h"
#include "cuda/principal_map.h"
#include "cuda/principal_map_sums.cuh"
#include "cuda/sums.cuh"

namespace camfuse::cuda {

// A sample's terms.
template <class A, bool rows>
struct PrincipalTerms {
  const A* from;
  int64_t stride;  // from line to line
  const A* means;

  __device__ __forceinline__ PrincipalTerms(const CudaPrincipalMapParams& p, int64_t b)
      : from(static_cast<const A*>(p.from.data) + b * p.from.batch),
        stride(p.from.line),
        means(static_cast<const A*>(p.means) + b * p.channels) {}

  __device__ __forceinline__ A value(int line, int i) const { return from[line * stride + i]; }
  __device__ __forceinline__ A centred(int line, int i) const {
    return value(line, i) - means[rows ? i : line];
  }
};

template <class A, bool rows>
struct PrincipalBlock {
  const CudaPrincipalMapParams& p;
  PrincipalState<A>& state;
  int64_t b;
  PrincipalTerms<A, rows> terms;
  A scale;    // of the terms: a power of two that brings the largest near 1
  int count;  // basis vectors there are, without the newest

  __device__ __forceinline__ PrincipalBlock(const CudaPrincipalMapParams& params,
                                            PrincipalState<A>& shared, int64_t sample)
      : p(params), state(shared), b(sample), terms(params, sample), scale(1), count(rows ? 0 : 1) {}

  static constexpr int kFirst = rows ? 0 : 1;  // the basis vector that is multiplied first

  __device__ __forceinline__ A* array(void* all, int64_t size) const {
    return static_cast<A*>(all) + b * size;
  }
  __device__ __forceinline__ A* basis(int k) const {
    return array(p.basis, int64_t{p.most_steps + 2} * p.length) + int64_t{k} * p.length;
  }

  // Means and scale; whether all terms are finite.
  __device__ __forceinline__ bool measure() {
    A largest = 0;
    const auto value = [&](int line, int i) {
      const A x = terms.value(line, i);
      const A size = fabs(x);
      if (size > largest || size != size) largest = size;
      return x;
    };
    A* const means = array(p.means, p.channels);
    const auto put = [&](int c, A sum) { means[c] = sum / static_cast<A>(p.positions); };
    if constexpr (rows) {
      sum_over_lines<A>(state, p.lines, p.length, value, put);
    } else {
      sum_each_line<A>(p.lines, p.length, value, put);
    }
    __syncthreads();
    largest = block_largest(state, largest);
    if (!(largest <= (sizeof(A) == 8 ? static_cast<A>(1.7976931348623157e308)
                                     : static_cast<A>(3.4028234663852886e38)))) {
      return false;
    }
    const int most = sizeof(A) == 8 ? 1000 : 120;
    const int exponent = largest > 0 ? ilogb(largest) : 0;
    scale = static_cast<A>(ldexp(A{1}, -min(max(exponent, -most), most)));
    return true;
  }

  // Energies, and the first basis vector: these, or what the centred terms make of them.
  __device__ __forceinline__ void start() {
    A* const energies = array(p.energies, p.positions);
    A* const first = basis(kFirst);
    const auto square = [&](int line, int i) {
      const A x = terms.value(line, i) * scale;
      return x * x;
    };
    if constexpr (rows) {
      A* const offsets = array(p.offsets, p.channels);
      sum_each_line<A>(p.lines, p.length, square, [&](int line, A sum) { energies[line] = sum; });
      __syncthreads();
      sum_over_lines<A>(
          state, p.lines, p.length,
          [&](int line, int i) { return terms.centred(line, i) * (energies[line] * scale); },
          [&](int i, A sum) { first[i] = sum; });
      sum_over_lines<A>(
          state, p.lines, p.length, [&](int line, int i) { return terms.centred(line, i); },
          [&](int i, A sum) { offsets[i] = sum / static_cast<A>(p.positions); });
    } else {
      A* const constant = basis(0);
      if (threadIdx.x == 0) state.lengths[0] = sqrt(static_cast<A>(p.positions));
      sum_over_lines<A>(state, p.lines, p.length, square, [&](int i, A sum) {
        energies[i] = first[i] = sum;
        constant[i] = 1;
      });
    }
    __syncthreads();
    A squares = 0;
    for (int i = threadIdx.x; i < p.length; i += kPrincipalThreads) squares += first[i] * first[i];
    const A size = sqrt(block_total(state, squares) / static_cast<A>(p.length));
    const A amplitude = size > 0 ? static_cast<A>(kNoiseShare) * size : A{1};
    for (int i = threadIdx.x; i < p.length; i += kPrincipalThreads) {
      first[i] += amplitude * static_cast<A>(principal_noise(i));
    }
    __syncthreads();
    orthogonalize();
  }

  // Dots of the newest basis vector with all and itself: a warp for each.
  __device__ __forceinline__ void find_dots() {
    const A* const newest = basis(count);
    sum_each_line<A>(
        count + 1, p.length, [&](int k, int i) { return basis(k)[i] * newest[i]; },
        [&](int k, A sum) { state.dots[k] = sum; });
    __syncthreads();
  }

  // Takes the basis vectors out of the newest: again where little is left and much of that is
  // rounding noise. What is noise even then is 0.
  __device__ __forceinline__ void orthogonalize() {
    A* const newest = basis(count);
    for (int round = 0; round < 2; ++round) {
      find_dots();
      const A before = state.dots[count];
      for (int k = threadIdx.x; k < count; k += kPrincipalThreads) {
        const A length = state.lengths[k];
        state.weights[k] = length > 0 ? -(state.dots[k] / length) / length : A{0};
      }
      __syncthreads();
      A squares = 0;
      for (int i = threadIdx.x; i < p.length; i += kPrincipalThreads) {
        const A x = newest[i] + combined(count, i);
        newest[i] = x;
        squares += x * x;
      }
      const A left = block_total(state, squares);
      if (threadIdx.x == 0) {
        state.lengths[count] = left > static_cast<A>(0.01) * before ? sqrt(left) : A{0};
      }
      __syncthreads();
      if (left > static_cast<A>(0.1) * before) return;
    }
  }

  // sum_k weights[k] * basis_k[i], k < vectors.
  __device__ __forceinline__ A combined(int vectors, int i) const {
    const A* at = basis(0) + i;
    A sum = 0;
    for (int k = 0; k < vectors; ++k, at += p.length) sum += *at * state.weights[k];
    return sum;
  }

  // The next basis vector and row of the tridiagonal matrix from the newest vector.
  __device__ __forceinline__ void multiply(int n) {
    const A* const newest = basis(count);
    const A length = state.lengths[count];
    const A factor = length > 0 ? scale / length : A{0};
    A* const coefficients = array(p.coefficients, p.lines);
    sum_each_line<A>(
        p.lines, p.length, [&](int line, int i) { return terms.centred(line, i) * newest[i]; },
        [&](int line, A sum) { coefficients[line] = sum * factor; });
    __syncthreads();
    A squares = 0, sums = 0;
    for (int line = threadIdx.x; line < p.lines; line += kPrincipalThreads) {
      squares += coefficients[line] * coefficients[line];
      sums += coefficients[line];
    }
    A diagonal = block_total(state, squares);
    const A sum = block_total(state, sums);
    if (rows) diagonal -= sum * sum / static_cast<A>(p.positions);
    diagonal = diagonal > 0 ? diagonal : A{0};
    const A along = length > 0 ? diagonal / length : A{0};
    const A before = n > 0 && length > 0 ? length / state.lengths[count - 1] : A{0};
    const A* const last = before != 0 ? basis(count - 1) : newest;
    const A* const offsets = array(p.offsets, p.channels);
    A* const next = basis(count + 1);
    sum_over_lines<A>(
        state, p.lines, p.length,
        [&](int line, int i) { return terms.centred(line, i) * coefficients[line]; },
        [&](int i, A product) {
          if constexpr (rows) product -= offsets[i] * sum;
          next[i] = product * scale - newest[i] * along - last[i] * before;
        });
    if (threadIdx.x == 0) state.diagonal[n] = diagonal;
    ++count;
    __syncthreads();
    orthogonalize();
    if (threadIdx.x == 0) state.beside[n] = state.lengths[count];
  }

  // Grows basis and tridiagonal matrix until the vector of the largest eigenvalue is close; returns
  // their size.
  __device__ __forceinline__ int iterate() {
    for (int n = 1;; ++n) {
      multiply(n - 1);
      if (threadIdx.x == 0) {
        state.value = largest_eigenvalue(state.diagonal, state.beside, n);
        top_eigenvector(state.diagonal, state.beside, n, state.value, state.vector, state.pivots);
        state.done =
            n == p.most_steps || is_close(state.diagonal, state.beside, n, state.beside[n - 1],
                                          state.value, state.vector, p.tolerance);
      }
      __syncthreads();
      if (state.done) return n;
    }
  }

  // The map, but for its sign: the vector along a line times the singular value, or X times it.
  __device__ __forceinline__ void project(int n) {
    const A factor = rows ? A{1} : static_cast<A>(sqrt(state.value)) / scale;
    for (int k = threadIdx.x; k < n + kFirst; k += kPrincipalThreads) {
      const A length = state.lengths[k];
      const bool counts = k >= kFirst && length > 0;
      state.weights[k] = counts ? factor * static_cast<A>(state.vector[k - kFirst]) / length : A{0};
    }
    __syncthreads();
    A* const values = array(p.values, p.positions);
    A* const out = rows ? basis(n) : values;
    for (int i = threadIdx.x; i < p.length; i += kPrincipalThreads)
      out[i] = combined(n + kFirst, i);
    __syncthreads();
    if constexpr (rows) {
      sum_each_line<A>(
          p.lines, p.length, [&](int line, int i) { return terms.centred(line, i) * out[i]; },
          [&](int line, A sum) { values[line] = sum; });
      __syncthreads();
    }
  }

  __device__ __forceinline__ void finish() {
    const A* const values = array(p.values, p.positions);
    const A* const energies = array(p.energies, p.positions);
    A* const map = array(p.maps, p.positions);
    A sums[2] = {0, 0}, most = 0;
    for (int i = threadIdx.x; i < p.positions; i += kPrincipalThreads) {
      sums[0] += values[i];
      sums[1] += energies[i];
      most = energies[i] > most ? energies[i] : most;
    }
    const A middle = block_total(state, sums[0]) / static_cast<A>(p.positions);
    const A energy = block_total(state, sums[1]) / static_cast<A>(p.positions);
    A products = 0;
    for (int i = threadIdx.x; i < p.positions; i += kPrincipalThreads) {
      products += (values[i] - middle) * (energies[i] - energy);
    }
    const A sign = block_total(state, products) < 0 ? A{-1} : A{1};
    Extremes<A> found = Extremes<A>::none();
    for (int i = threadIdx.x; i < p.positions; i += kPrincipalThreads) {
      const A x = (values[i] - middle) * sign;
      map[i] = x;
      found.add(x);
    }
    const A low = -block_largest(state, -found.low), high = block_largest(state, found.high);
    most = block_largest(state, most);
    if (threadIdx.x != 0) return;
    array(p.ranges, 2)[0] = low;
    array(p.ranges, 2)[1] = high;
    *array(p.scales, 1) = sqrt(most) / scale;
  }

  __device__ __forceinline__ void give_nan() {
    const A nan = static_cast<A>(NAN);
    A* const map = array(p.maps, p.positions);
    for (int i = threadIdx.x; i < p.positions; i += kPrincipalThreads) map[i] = nan;
    if (threadIdx.x != 0) return;
    array(p.ranges, 2)[0] = array(p.ranges, 2)[1] = *array(p.scales, 1) = nan;
  }
};

// Block b: sample b.
template <class A, bool rows>
__global__ void __launch_bounds__(kPrincipalThreads, 1)
    find_principal(const __grid_constant__ CudaPrincipalMapParams p) {
  auto& state = *shared_memory<PrincipalState<A>>();
  PrincipalBlock<A, rows> block(p, state, blockIdx.x);
  if (!block.measure()) return block.give_nan();
  block.start();
  block.project(block.iterate());
  block.finish();
}

}  // namespace camfuse::cuda
