// What kernels use of CUDA, in one place. nvcc takes it from CUDA itself; a host compiler takes the
// same names from tests/emulator/, which runs the kernels on the CPU. Torch-free.
//
// Kernels keep to this: all shared memory is dynamic (shared_memory()), loads wider than an element
// go through load_pack(), and launches through launch().
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "emulated_cuda.h"
#endif

namespace camfuse::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Inputs of 16 bits, as they lie in memory.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
// What inputs of type T are added up in.
template <class T>
using Acc = typename AccOf<T>::type;

__device__ __forceinline__ double to_acc(double x) { return x; }
__device__ __forceinline__ float to_acc(float x) { return x; }
__device__ __forceinline__ float to_acc(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float to_acc(Half x) { return __half2float(__ushort_as_half(x.bits)); }

// x * y + z, rounded once. Compilers may not fuse by themselves, so that bits are the same
// everywhere.
__device__ __forceinline__ float fused(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ double fused(double x, double y, double z) { return fma(x, y, z); }

// N elements that lie together; 16 bytes of them are one load.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T at[N];
};

// The elements of T in 16 bytes.
template <class T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// `from` must be aligned to the pack; the emulator checks it.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
#ifdef __CUDACC__
  if constexpr (sizeof(Pack<T, N>) == 16) {
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    Pack<T, N> pack;
    memcpy(&pack, &words, 16);
    return pack;
  } else {
    return *reinterpret_cast<const Pack<T, N>*>(from);
  }
#else
  return emulated::load_aligned<Pack<T, N> >(from);
#endif
}

// `to` must be aligned to the pack.
template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
#ifdef __CUDACC__
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
#else
  emulated::store_aligned(to, pack);
#endif
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char camfuse_shared[];
  return reinterpret_cast<T*>(camfuse_shared);
#else
  return reinterpret_cast<T*>(emulated::shared_memory());
#endif
}

// A value that another block wrote during this launch: never from this SM's own cache.
template <class T>
__device__ __forceinline__ T load_fresh(const T* from) {
#ifdef __CUDACC__
  return __ldcg(from);
#else
  return *from;
#endif
}

// Whether this block is the last of `count` to come here; all its threads are told. What the others
// wrote before is then visible through load_fresh(). `flag` is one word of shared memory.
__device__ __forceinline__ bool arrives_last(unsigned* counter, unsigned count, unsigned* flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // what all threads of the block wrote comes before its arrival
    *flag = atomicAdd(counter, 1u) + 1 == count;
  }
  __syncthreads();
  const bool last = *flag != 0;
  if (last) __threadfence();
  __syncthreads();  // so that `flag` may be used again
  return last;
}

}  // namespace camfuse::cuda
