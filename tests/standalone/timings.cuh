// Times of the ops on real layers, against reading the same bytes and against cudaMemcpy.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "checks.h"

namespace standalone {

constexpr int kRounds = 11;
constexpr int kCallsPerRound = 20;

// Reads n packs of 16 bytes and adds them up: the least that an op on them can take.
__global__ void __launch_bounds__(256) read_packs(const uint4* from, int64_t n, unsigned* sums) {
  unsigned sum = 0;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * step < n; i += 4 * step) {
    uint4 packs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) packs[j] = __ldg(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += packs[j].x ^ packs[j].y ^ packs[j].z ^ packs[j].w;
  }
  for (; i < n; i += step) {
    const uint4 pack = __ldg(from + i);
    sum += pack.x ^ pack.y ^ pack.z ^ pack.w;
  }
  for (int distance = 16; distance > 0; distance /= 2)
    sum += __shfl_down_sync(0xffffffffu, sum, distance);
  if (threadIdx.x % 32 == 0) atomicAdd(sums + blockIdx.x, sum);
}

struct Events {
  cudaEvent_t begin, end;
  Events() {
    cuda::check_cuda(cudaEventCreate(&begin), "cudaEventCreate");
    cuda::check_cuda(cudaEventCreate(&end), "cudaEventCreate");
  }
  ~Events() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
};

// Median seconds of a call, of rounds of several; call(i) may take turns among buffers.
template <class Call>
double seconds_of(const Call& call) {
  const Events events;
  std::vector<float> rounds;
  int i = 0;
  for (int round = -2; round < kRounds; ++round) {  // two to warm up
    cuda::check_cuda(cudaEventRecord(events.begin), "cudaEventRecord");
    for (int n = 0; n < kCallsPerRound; ++n) call(i++);
    cuda::check_cuda(cudaEventRecord(events.end), "cudaEventRecord");
    cuda::check_cuda(cudaEventSynchronize(events.end), "cudaEventSynchronize");
    float milliseconds = 0;
    cuda::check_cuda(cudaEventElapsedTime(&milliseconds, events.begin, events.end),
                     "cudaEventElapsedTime");
    if (round >= 0) rounds.push_back(milliseconds);
  }
  std::sort(rounds.begin(), rounds.end());
  return static_cast<double>(rounds[kRounds / 2]) / 1e3 / kCallsPerRound;
}

struct Timing {
  std::string layer, op;
  double seconds;
  double read_seconds;  // of the bytes that the op must read
  double bytes;         // those
};

// Inputs that take turns, so that none is in the L2 cache when its turn comes.
class Turns {
 public:
  Turns(const Layer& layer, int64_t cache_bytes) : layer_(layer) {
    const int64_t bytes = layer.elements() * camfuse::element_size(layer.dtype);
    const int64_t copies = std::min<int64_t>(3 * cache_bytes / (2 * bytes) + 1, 256);
    for (int64_t i = 0; i < copies; ++i) {
      both_.push_back(std::make_unique<DeviceBuffer>(static_cast<std::size_t>(2 * bytes)));
      both_.back()->fill(0x3C);  // a number of every type
    }
  }

  int64_t bytes() const { return static_cast<int64_t>(both_[0]->bytes()); }
  const DeviceBuffer& at(int i) const { return *both_[static_cast<std::size_t>(i) % both_.size()]; }

  LayerCamArgs args(int i, const std::vector<Rule>& rules) const {
    LayerCamArgs args{};
    args.dtype = layer_.dtype;
    args.B = layer_.B, args.C = layer_.C, args.h = layer_.h, args.w = layer_.w;
    const auto* const memory = static_cast<const unsigned char*>(at(i).get());
    args.a = layer_.view(memory);
    args.g = layer_.view(memory + bytes() / 2);
    args.rules = rules.data(), args.R = static_cast<int64_t>(rules.size());
    for (Rule rule : rules) args.uses[static_cast<int>(rule)] = true;
    return args;
  }

 private:
  Layer layer_;
  std::vector<std::unique_ptr<DeviceBuffer>> both_;
};

inline double read_seconds(const Turns& turns, DeviceBuffer* sums, int blocks) {
  return seconds_of([&](int i) {
    read_packs<<<blocks, 256>>>(static_cast<const uint4*>(turns.at(i).get()), turns.bytes() / 16,
                                static_cast<unsigned*>(sums->get()));
  });
}

inline std::vector<Timing> time_layer(const Layer& layer, const cudaDeviceProp& device) {
  const Turns turns(layer, device.l2CacheSize);
  const int blocks = 8 * device.multiProcessorCount;
  DeviceBuffer sums(static_cast<std::size_t>(blocks) * 4);
  const double floor = read_seconds(turns, &sums, blocks);
  const auto acc = camfuse::acc_size(layer.dtype);

  std::vector<Timing> timings;
  const auto add = [&](const char* op, double seconds) {
    timings.push_back({layer.name(), op, seconds, floor, static_cast<double>(turns.bytes())});
  };
  const std::vector<Rule> gradient_rules(std::begin(kRules), std::end(kRules) - 1);
  const std::vector<std::pair<const char*, std::vector<Rule>>> ops = {
      {"gradcam", {Rule::kGradCam}},
      {"gradcam++", {Rule::kGradCamPlusPlus}},
      {"layercam", {Rule::kLayerCam}},
      {"six rules", gradient_rules}};
  for (const auto& named : ops) {
    const std::vector<Rule>& rules = named.second;
    const auto maps = static_cast<std::size_t>(layer.B) * rules.size();
    DeviceBuffer map_buffer(maps * static_cast<std::size_t>(layer.plane() * acc));
    DeviceBuffer range_buffer(maps * static_cast<std::size_t>(2 * acc));
    LayerCamArgs args = turns.args(0, rules);
    args.maps = map_buffer.get(), args.ranges = range_buffer.get();
    DeviceBuffer workspace(
        static_cast<std::size_t>(cuda::plan_layer_cam(args, {}).workspace_bytes));
    add(named.first, seconds_of([&](int i) {
          LayerCamArgs turn = turns.args(i, rules);
          turn.maps = map_buffer.get(), turn.ranges = range_buffer.get();
          cuda::launch_layer_cam(cuda::plan_layer_cam(turn, {}), workspace.get(), nullptr);
        }));
  }
  const std::vector<Rule>& rules = ops[0].second;
  DeviceBuffer picture(static_cast<std::size_t>(layer.B * 224 * 224 * acc));
  const cuda::Display display{layer.h, layer.w, 224, 224, true, picture.get()};
  const auto bytes = cuda::plan_layer_cam(turns.args(0, rules), display).workspace_bytes;
  DeviceBuffer workspace(static_cast<std::size_t>(bytes));
  add("fused_cam", seconds_of([&](int i) {
        cuda::launch_fused_cam(cuda::plan_layer_cam(turns.args(i, rules), display), display,
                               workspace.get(), nullptr);
      }));
  return timings;
}

// Bytes read and written a second by copies within the device.
inline double copy_bandwidth() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  DeviceBuffer from(kBytes), to(kBytes);
  const double seconds = seconds_of([&](int) {
    cuda::check_cuda(
        cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, nullptr),
        "cudaMemcpyAsync");
  });
  return 2 * static_cast<double>(kBytes) / seconds;
}

// Of an empty kernel, one after another.
__global__ void do_nothing() {}
inline double launch_seconds() {
  return seconds_of([](int) { do_nothing<<<1, 32>>>(); });
}

inline std::vector<Layer> timed_layers() {
  std::vector<Layer> layers;
  const auto add = [&](Dtype dtype, Layout layout, int64_t B) {
    for (const auto& [C, side] : std::vector<std::pair<int64_t, int64_t>>{
             {64, 224}, {256, 56}, {512, 28}, {1024, 14}, {2048, 7}}) {
      layers.push_back({dtype, layout, B, C, side, side});
    }
  };
  add(Dtype::kF32, Layout::kPlanes, 1);
  add(Dtype::kF32, Layout::kPlanes, 32);
  add(Dtype::kF32, Layout::kRows, 32);
  add(Dtype::kF16, Layout::kPlanes, 32);
  return layers;
}

}  // namespace standalone
