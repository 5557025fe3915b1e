// Small kernels for test_emulator.py. Those with a `fault` are right when it is 0; their other
// faults are numbered as their comments list them.
#include <cstdint>

#include "cuda/launch.h"
#include "interface.h"

namespace camfuse::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kNothing = 0;  // shared memory

// The fault that Python asks for.
int fault_of(const emulated::Arguments& args) { return static_cast<int>(args.integer("fault")); }

__device__ __forceinline__ unsigned global_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Sums of kThreads numbers, by a tree. Faults: no barrier behind the loads; none in the tree; a
// thread's number is never stored.
__global__ void block_sums(const float* __restrict__ x, float* __restrict__ sums, int fault) {
  float* values = shared_memory<float>();
  const unsigned t = threadIdx.x;
  if (fault != 3 || t != 77) values[t] = x[global_index()];
  if (fault != 1) __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) values[t] += values[t + half];
    if (fault != 2) __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = values[0];
}

EMULATED_OP(block_sums, args) {
  launch("block_sums", block_sums, args.integer("blocks"), kThreads, kThreads * sizeof(float),
         nullptr, args.array<const float>("x"), args.array<float>("sums"), fault_of(args));
}

// The same by warps, through shared memory: what a lane stored, others read behind __syncwarp().
// Fault: they do not wait.
__global__ void warp_sums(const float* __restrict__ x, float* __restrict__ sums, int fault) {
  float* values = shared_memory<float>() + threadIdx.x / kWarp * kWarp;
  const unsigned lane = threadIdx.x % kWarp;
  values[lane] = x[global_index()];
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    if (fault != 1) __syncwarp();
    if (lane < half) values[lane] += values[lane + half];
  }
  if (lane == 0) sums[global_index() / kWarp] = values[0];
}

EMULATED_OP(warp_sums, args) {
  launch("warp_sums", warp_sums, args.integer("blocks"), kThreads, kThreads * sizeof(float),
         nullptr, args.array<const float>("x"), args.array<float>("sums"), fault_of(args));
}

// The same by shuffles. Faults: the last lane has ended; it does something else first; lanes read
// some that their masks lack; lanes give a mask that lacks them.
__global__ void shuffle_sums(const float* __restrict__ x, float* __restrict__ sums, int fault) {
  const unsigned lane = threadIdx.x % kWarp;
  float sum = x[global_index()];
  if (fault == 1 && lane == kWarp - 1) return;
  if (fault == 2 && lane == kWarp - 1) __ballot_sync(kAllLanes, 1);
  const unsigned half = 0xffffu << (lane & 16);
  const unsigned mask = fault == 3 ? half : fault == 4 ? ~half : kAllLanes;
  for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
  if (lane == 0) sums[global_index() / kWarp] = sum;
}

EMULATED_OP(shuffle_sums, args) {
  launch("shuffle_sums", shuffle_sums, args.integer("blocks"), kThreads, kNothing, nullptr,
         args.array<const float>("x"), args.array<float>("sums"), fault_of(args));
}

// The sum of the first half of each warp; the other half is no more.
__global__ void half_warp_sums(const float* x, float* sums) {
  if (threadIdx.x % kWarp >= 16) return;
  float sum = x[global_index()];
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffu, sum, step);
  if (threadIdx.x % kWarp == 0) sums[global_index() / kWarp] = sum;
}

EMULATED_OP(half_warp_sums, args) {
  launch("half_warp_sums", half_warp_sums, args.integer("blocks"), 64, kNothing, nullptr,
         args.array<const float>("x"), args.array<float>("sums"));
}

// What each lane gets from each kind of shuffle, in segments of `width` lanes.
template <class T>
__global__ void shuffles(const T* x, T* results, unsigned* ballots, int amount, int width) {
  const unsigned t = threadIdx.x;
  const T mine = x[t];
  results[0 * kWarp + t] = __shfl_sync(kAllLanes, mine, amount, width);
  results[1 * kWarp + t] = __shfl_xor_sync(kAllLanes, mine, amount, width);
  results[2 * kWarp + t] = __shfl_down_sync(kAllLanes, mine, static_cast<unsigned>(amount), width);
  results[3 * kWarp + t] = __shfl_up_sync(kAllLanes, mine, static_cast<unsigned>(amount), width);
  const int odd = static_cast<int>(t & 1);
  ballots[t] = __ballot_sync(kAllLanes, odd);
  ballots[kWarp + t] = static_cast<unsigned>(__any_sync(kAllLanes, t == 7));
  ballots[2 * kWarp + t] = static_cast<unsigned>(__all_sync(kAllLanes, t != 7));
}

template <class T>
void run_shuffles(const emulated::Arguments& args) {
  launch("shuffles", shuffles<T>, 1, kWarp, kNothing, nullptr, args.array<const T>("x"),
         args.array<T>("results"), args.array<unsigned>("ballots"),
         static_cast<int>(args.integer("amount")), static_cast<int>(args.integer("width")));
}
EMULATED_OP(shuffles_of_int32, args) { run_shuffles<int>(args); }
EMULATED_OP(shuffles_of_uint32, args) { run_shuffles<unsigned>(args); }
EMULATED_OP(shuffles_of_float32, args) { run_shuffles<float>(args); }
EMULATED_OP(shuffles_of_float64, args) { run_shuffles<double>(args); }

// A copy by way of shared memory. Faults: one past the end of the input; of the output; of shared
// memory.
__global__ void copy(const float* from, float* to, int count, int fault) {
  float* values = shared_memory<float>();
  const int i = static_cast<int>(threadIdx.x);
  const int past = i == count - 1 ? 1 : 0;
  if (i >= count) return;
  values[i + (fault == 3 ? past : 0)] = from[i + (fault == 1 ? past : 0)];
  to[i + (fault == 2 ? past : 0)] = values[i];
}

EMULATED_OP(copy, args) {
  const auto count = static_cast<int>(args.integer("count"));
  launch("copy", copy, 1, kThreads, count * static_cast<int64_t>(sizeof(float)), nullptr,
         args.array<const float>("x"), args.array<float>("copy"), count, fault_of(args));
}

// A copy by 16 bytes. Fault: the last thread's part is left out.
__global__ void wide_copy(const float* from, float* to, unsigned packs, int fault) {
  const unsigned i = global_index();
  if (i >= packs - (fault == 1 ? 1 : 0)) return;
  const Pack<float, 4> pack = load_pack<4>(from + 4 * i);
  for (unsigned k = 0; k < 4; ++k) to[4 * i + k] = pack.at[k];
}

EMULATED_OP(wide_copy, args) {
  const auto packs = args.integer("packs");
  launch("wide_copy", wide_copy, (packs + 31) / 32, 32, kNothing, nullptr,
         args.array<const float>("x"), args.array<float>("copy"), static_cast<unsigned>(packs),
         fault_of(args));
}

// Barriers. Faults: a thread ends without; is at another one; waits for its warp, which is there.
__global__ void barriers(unsigned* seen, int fault) {
  const bool last = threadIdx.x == blockDim.x - 1;
  if (fault == 1 && last) return;
  if (fault == 2 && last) {
    __syncthreads();
  } else if (fault == 3 && last) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  seen[global_index()] = threadIdx.x;
}

EMULATED_OP(barriers, args) {
  launch("barriers", barriers, 2, static_cast<int>(args.integer("threads")), kNothing, nullptr,
         args.array<unsigned>("seen"), fault_of(args));
}

// The sum of all numbers, by the block that comes last. Fault: it adds in the order of arrival.
__global__ void sum_by_last(const float* x, float* parts, unsigned* counters, float* sum,
                            int fault) {
  float* value = shared_memory<float>();
  auto* flag = reinterpret_cast<unsigned*>(value + 1);
  if (threadIdx.x == 0) {
    float part = 0;
    for (unsigned i = 0; i < blockDim.x; ++i) part += x[blockIdx.x * blockDim.x + i];
    const unsigned arrived = atomicAdd(counters, 1u);
    parts[fault == 1 ? arrived : blockIdx.x] = part;
  }
  if (!arrives_last(counters + 1, gridDim.x, flag)) return;
  if (threadIdx.x != 0) return;
  float total = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) total += load_fresh(parts + block);
  *sum = total;
}

// Second fault: the counters are not zeroed.
EMULATED_OP(sum_by_last, args) {
  auto* counters = args.array<unsigned>("counters");
  if (fault_of(args) != 2) {
    check_cuda(cudaMemsetAsync(counters, 0, 2 * sizeof(*counters), nullptr), "cudaMemsetAsync");
  }
  launch("sum_by_last", sum_by_last, args.integer("blocks"), 64, 8, nullptr,
         args.array<const float>("x"), args.array<float>("parts"), counters,
         args.array<float>("sum"), fault_of(args));
}

__global__ void extremes(const int* x, int* range, unsigned* bits) {
  atomicMin(range, x[global_index()]);
  atomicMax(range + 1, x[global_index()]);
  atomicAdd(range + 2, x[global_index()]);
  atomicMax(bits, static_cast<unsigned>(x[global_index()]));
}

EMULATED_OP(extremes, args) {
  launch("extremes", extremes, 4, 32, kNothing, nullptr, args.array<const int>("x"),
         args.array<int>("range"), args.array<unsigned>("bits"));
}

// Many barriers and shuffles, to be timed.
__global__ void many_sums(const float* x, double* sums, int rounds) {
  double* parts = shared_memory<double>();
  double sum = 0;
  for (int round = 0; round < rounds; ++round) {
    double part = x[global_index()];
    for (int step = kWarp / 2; step > 0; step /= 2) part += __shfl_xor_sync(kAllLanes, part, step);
    if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = part;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += parts[w];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

EMULATED_OP(many_sums, args) {
  launch("many_sums", many_sums, args.integer("blocks"), kThreads,
         kThreads / kWarp * static_cast<int64_t>(sizeof(double)), nullptr,
         args.array<const float>("x"), args.array<double>("sums"),
         static_cast<int>(args.integer("rounds")));
}

__global__ void widen_halves(const Half* halves, const BFloat16* brains, float* widened) {
  const unsigned i = global_index(), count = gridDim.x * blockDim.x;
  widened[i] = to_acc(halves[i]);
  widened[count + i] = to_acc(brains[i]);
}

EMULATED_OP(widen_halves, args) {
  launch("widen_halves", widen_halves, args.integer("blocks"), kThreads, kNothing, nullptr,
         args.array<const Half>("halves"), args.array<const BFloat16>("brains"),
         args.array<float>("widened"));
}

__global__ void fill(float* to, float value) { to[threadIdx.x] = value; }

// Waits for what no one does.
__global__ void spin(unsigned* flag) {
  while (atomicAdd(flag, 0u) != 1) __threadfence();
}

EMULATED_OP(spin, args) {
  launch("spin", spin, 1, 32, kNothing, nullptr, args.array<unsigned>("flag"));
}

// Launches as it is told, with a value that the host reads. `peek`: the host reads `to`, too.
EMULATED_OP(fill, args) {
  const auto* value = args.array<const float>("value");
  auto* to = args.array<float>("to");
  float sent = *value;
  if (args.flag("peek")) sent += *to;
  launch("fill", fill, args.integer("blocks"), static_cast<int>(args.integer("threads")),
         args.integer("shared_bytes"), nullptr, to, sent);
}

EMULATED_OP(see_device, args) {
  const Device device = current_device();
  const int64_t seen[] = {device.multiprocessors, device.shared_bytes};
  check_cuda(cudaMemcpyAsync(args.array<int64_t>("seen"), seen, sizeof(seen),
                             cudaMemcpyHostToDevice, nullptr),
             "cudaMemcpyAsync");
}

// What the host gets of an argument.
EMULATED_OP(arguments, args) {
  auto* seen = args.array<double>("seen");
  const auto shape = args.shape("x"), strides = args.strides("x");
  seen[0] = args.real("real");
  seen[1] = static_cast<double>(args.integer("integer"));
  seen[2] = args.flag("flag");
  seen[3] = args.array<void>("none") == nullptr && args.shape("none").empty();
  seen[4] = static_cast<double>(shape[0] * 100 + shape[1]);
  seen[5] = static_cast<double>(strides[0] * 100 + strides[1]);
  seen[6] = static_cast<double>(reinterpret_cast<uintptr_t>(args.array<const float>("x")) % 16);
}

}  // namespace
}  // namespace camfuse::cuda
