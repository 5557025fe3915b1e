// Functions that kernels of every backend share.
#pragma once

// Such a function runs on the CPU and on the GPU. It is never a symbol of its own: one that was
// built for AVX-512 must not stand in for another's.
#ifdef __CUDACC__
#define CAMFUSE_HD __host__ __device__ __forceinline__
#else
#define CAMFUSE_HD inline __attribute__((always_inline))
#endif
