// Checks the CUDA ops on a GPU without torch, then times them.
//
//   nvcc -std=c++17 -O3 -fmad=false --expt-relaxed-constexpr -Icsrc -arch=native -o gpu_check
//     tests/standalone/gpu_check.cu csrc/cuda/{layer_cam,fused_cam,render_frames}.cu
//   ./gpu_check [--check-only]
//
// Prints what failed, a table, and one line of JSON. Exit status: 0 all checks pass, 1 some fail or
// CUDA does, 77 there is no GPU.
#include <cstdio>
#include <cstring>
#include <exception>

#include "timings.cuh"

namespace {

using namespace standalone;

constexpr int kNoDevice = 77;

void print_json(const cudaDeviceProp& device, const Checks& checks, double copy, double launch,
                const std::vector<Timing>& timings) {
  std::printf(
      "{\"name\": \"gpu_check\", \"device\": \"%s\", \"capability\": \"%d.%d\", \"checks\": %d, "
      "\"failed\": %zu, \"copy_gb_s\": %.1f, \"launch_us\": %.2f, \"timings\": [",
      device.name, device.major, device.minor, checks.made, checks.failures.size(), copy / 1e9,
      launch * 1e6);
  for (const Timing& one : timings) {
    std::printf("%s{\"layer\": \"%s\", \"op\": \"%s\", \"us\": %.2f, \"read_us\": %.2f}",
                &one == timings.data() ? "" : ", ", one.layer.c_str(), one.op.c_str(),
                one.seconds * 1e6, one.read_seconds * 1e6);
  }
  std::printf("]}\n");
}

int run(bool check_only) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no CUDA device, nothing was checked (%s)\n",
                 error == cudaSuccess ? "none found" : cudaGetErrorString(error));
    return kNoDevice;
  }
  cudaDeviceProp device{};
  cuda::check_cuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");

  const Checks checks = run_checks();
  for (const std::string& failure : checks.failures) std::printf("FAILED  %s\n", failure.c_str());
  std::printf("%s: %d checks, %zu failed\n", device.name, checks.made, checks.failures.size());

  std::vector<Timing> timings;
  double copy = 0, launch = 0;
  if (!check_only) {
    copy = copy_bandwidth(), launch = launch_seconds();
    std::printf("cudaMemcpy within the device: %.0f GB/s; an empty kernel: %.2f us\n", copy / 1e9,
                launch * 1e6);
    std::printf("%-28s %-10s %10s %10s %8s %8s\n", "A and G", "op", "us", "read us", "ratio",
                "GB/s");
    for (const Layer& layer : timed_layers()) {
      for (const Timing& one : time_layer(layer, device)) {
        std::printf("%-28s %-10s %10.2f %10.2f %8.2f %8.0f\n", one.layer.c_str(), one.op.c_str(),
                    one.seconds * 1e6, one.read_seconds * 1e6, one.seconds / one.read_seconds,
                    one.bytes / one.seconds / 1e9);
        timings.push_back(one);
      }
    }
  }
  print_json(device, checks, copy, launch, timings);
  return checks.failures.empty() ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  const bool check_only = count == 2 && std::strcmp(words[1], "--check-only") == 0;
  if (count > 1 && !check_only) {
    std::fprintf(stderr, "usage: %s [--check-only]\n", words[0]);
    return 2;
  }
  try {
    return run(check_only);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
  }
}
