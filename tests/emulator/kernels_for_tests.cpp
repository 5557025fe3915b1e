// Small kernels, right ones and faulty ones, for test_emulator.py.
#include <cstdint>

#include "cuda/launch.h"
#include "interface.h"

namespace camfuse::cuda {
namespace {

enum class Fault { kNone, kFirst, kSecond };

// The right kernel, or one with a fault of those that the kernel knows.
template <class Launch>
void with_fault(const emulated::Arguments& args, Launch launch_with) {
  switch (args.integer("fault")) {
    case 0: return launch_with(std::integral_constant<Fault, Fault::kNone>());
    case 1: return launch_with(std::integral_constant<Fault, Fault::kFirst>());
    default: return launch_with(std::integral_constant<Fault, Fault::kSecond>());
  }
}

constexpr int kThreads = 256;

// Each block's sum of kThreads numbers. Faults: no barrier after the loads; none in the tree.
template <Fault kFault>
__global__ void block_sums(const float* __restrict__ from, float* __restrict__ sums) {
  float* values = shared_memory<float>();
  const unsigned t = threadIdx.x;
  values[t] = from[blockIdx.x * blockDim.x + t];
  if (kFault != Fault::kFirst) __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) values[t] += values[t + half];
    if (kFault != Fault::kSecond) __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = values[0];
}

EMULATED_OP(block_sums, args) {
  with_fault(args, [&](auto fault) {
    launch("block_sums", block_sums<fault()>, args.integer("blocks"), kThreads,
           kThreads * sizeof(float), nullptr, args.array<const float>("x"),
           args.array<float>("sums"));
  });
}

__device__ __forceinline__ double warp_sum(double x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Sums of rows, each by a block, with `rounds` barriers and shuffle trees.
__global__ void many_sums(const float* from, double* sums, int rounds) {
  double* partial = shared_memory<double>();
  const unsigned t = threadIdx.x;
  double sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const double part = warp_sum(to_acc(from[blockIdx.x * blockDim.x + t]));
    if (t % kWarp == 0) partial[t / kWarp] = part;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += partial[w];
    __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = sum;
}

EMULATED_OP(many_sums, args) {
  launch("many_sums", many_sums, args.integer("blocks"), kThreads,
         kThreads / kWarp * sizeof(double), nullptr, args.array<const float>("x"),
         args.array<double>("sums"), static_cast<int>(args.integer("rounds")));
}

}  // namespace
}  // namespace camfuse::cuda
