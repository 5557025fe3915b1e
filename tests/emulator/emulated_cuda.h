// CUDA on the CPU: what csrc/cuda/ uses of CUDA, for a host compiler. A kernel that compiles with
// this runs as it is, its threads interleaved in an order that a seed chooses (engine.h), under
// AddressSanitizer and UndefinedBehaviorSanitizer. What kernels come to need is to be added here.
//
// What this cannot show:
// - Races between two switch points. Threads change places only at barriers, shuffles, atomics and
//   fences, and memory is sequentially consistent: a forgotten fence, or a plain store that another
//   thread sees late or half, goes unnoticed.
// - What fast maths, contraction, or the device's own sin and exp change in results. This is IEEE
//   arithmetic and the host's library.
// - The device's own faults. Wide loads are checked because load_pack() asks for it; of casts to
//   wider types UBSan sees what the host's types say.
// - Speed: neither coalescing nor bank conflicts, registers nor occupancy.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "engine.h"

// Some of these names are the compiler's (__restrict__), and __noinline__ is the standard
// library's.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct __half {
  unsigned short bits;
};

// Of the thread that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// Runtime -----------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
using cudaStream_t = struct EmulatedStream*;

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device);
cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;  // launch() checks what is asked against what the device has
}

// Threads -----------------------------------------------------------------------------------------

inline void __syncthreads(emulated::Where where = emulated::Where::current()) {
  emulated::wait_for_block(where);
}
inline void __threadfence() { emulated::give_way(); }
inline void __threadfence_block() { emulated::give_way(); }

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       emulated::Where where = emulated::Where::current()) {
  emulated::exchange(emulated::Intrinsic::kSyncwarp, mask, 0, threadIdx.x % 32, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulated::Where where = emulated::Where::current()) {
  return static_cast<unsigned>(emulated::exchange(emulated::Intrinsic::kBallot, mask,
                                                  predicate != 0, threadIdx.x % 32, where));
}
inline int __any_sync(unsigned mask, int predicate,
                      emulated::Where where = emulated::Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      emulated::Where where = emulated::Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

namespace emulated {

// Lanes outside of the segment of `width` lanes are out of reach: a lane then reads itself.
template <class T>
T shuffle(Intrinsic intrinsic, unsigned mask, T value, unsigned source, bool in_reach,
          Where where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const unsigned from = in_reach ? source : threadIdx.x % 32;
  bits = exchange(intrinsic, mask, bits, static_cast<int>(from), where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulated

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              emulated::Where where = emulated::Where::current()) {
  const unsigned lane = threadIdx.x % 32, w = static_cast<unsigned>(width);
  const unsigned from = lane / w * w + static_cast<unsigned>(source) % w;
  return emulated::shuffle(emulated::Intrinsic::kShuffle, mask, value, from, true, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  emulated::Where where = emulated::Where::current()) {
  const unsigned lane = threadIdx.x % 32, w = static_cast<unsigned>(width);
  const unsigned from = (lane ^ static_cast<unsigned>(lane_mask)) % 32;
  return emulated::shuffle(emulated::Intrinsic::kShuffleXor, mask, value, from,
                           from < lane / w * w + w, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   emulated::Where where = emulated::Where::current()) {
  const unsigned lane = threadIdx.x % 32, w = static_cast<unsigned>(width);
  return emulated::shuffle(emulated::Intrinsic::kShuffleDown, mask, value, lane + delta,
                           lane % w + delta < w, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 emulated::Where where = emulated::Where::current()) {
  const unsigned lane = threadIdx.x % 32, w = static_cast<unsigned>(width);
  return emulated::shuffle(emulated::Intrinsic::kShuffleUp, mask, value, lane - delta,
                           lane % w >= delta, where);
}

// Atomics of floating-point numbers are left out on purpose: their sums depend on the order.
namespace emulated {

template <class T, class Change>
T atomically(T* at, Change change) {
  static_assert(std::is_integral_v<T>);
  give_way();
  const T old = *at;
  *at = change(old);
  give_way();  // others see it before this thread goes on
  return old;
}

}  // namespace emulated

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  using Bits = std::make_unsigned_t<T>;  // wraps
  return emulated::atomically(
      at, [=](T old) { return static_cast<T>(static_cast<Bits>(old) + static_cast<Bits>(value)); });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return emulated::atomically(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulated::atomically(at, [=](T old) { return value > old ? value : old; });
}

// Memory and arithmetic ---------------------------------------------------------------------------

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}

namespace emulated {

// A P from memory that must be aligned to it.
template <class P>
P load_aligned(const void* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % alignof(P) != 0) {
    fail_misaligned(from, sizeof(P), alignof(P));
  }
  P pack;
  std::memcpy(&pack, from, sizeof(P));
  return pack;
}

// Puts a P into memory that must be aligned to it.
template <class P, class T>
void store_aligned(T* to, const P& pack) {
  if (reinterpret_cast<std::uintptr_t>(to) % alignof(P) != 0) {
    fail_misaligned(to, sizeof(P), alignof(P));
  }
  std::memcpy(to, &pack, sizeof(P));
}

template <class Thread>
void launch(int64_t blocks, int threads, int64_t shared_bytes, Thread thread) {
  run(
      blocks, threads, shared_bytes, [](void* argument) { (*static_cast<Thread*>(argument))(); },
      &thread);
}

}  // namespace emulated

inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half half) {
  const unsigned sign = (half.bits & 0x8000u) << 16, rest = half.bits & 0x7fffu;
  if (rest >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | rest << 13);  // inf, NaN
  // The exponent's bias is 15 in a half, 127 in a float.
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }

#define EMULATED_MIN_MAX(T)                        \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
// The number, where one is NaN.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
