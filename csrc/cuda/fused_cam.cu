// fused_cam on a CUDA device: layer_cam's launches, the maps being shown by the last block of each
// sample where layer_cam itself takes two, and by a launch of their own where it takes one.
#include "common/divide.h"
#include "cuda/fused_cam.h"
#include "cuda/fused_cam_kernel.cuh"
#include "cuda/launch.h"
#include "cuda/layer_cam.h"

namespace camfuse::cuda {
namespace {

// Pixels are counted in 32 bits, and so are Note: [Bilinear taps].
void check_side(const char* name, int64_t from, int64_t to) {
  if ((2 * to + 1) * from < int64_t{1} << 32) return;
  throw std::invalid_argument("size: " + std::to_string(to) + " " + name + " from " +
                              std::to_string(from) +
                              " are more than the CUDA kernel counts; call it on the CPU");
}

template <class A>
void launch_show(const Display& display, const CudaLayerCamParams& p, cudaStream_t stream) {
  const int64_t parts = divide_up(int64_t{display.H} * display.W, kShownAtOnce);
  launch("show_maps", show_maps<A>, p.B * parts, kThreads, 0, stream, display,
         static_cast<const A*>(p.maps), static_cast<const A*>(p.ranges));
}

}  // namespace

void check_display(const Display& display) {
  check_side("rows", display.h, display.H);
  check_side("columns", display.w, display.W);
  if (int64_t{display.H} * display.W < int64_t{1} << 31) return;
  throw std::invalid_argument("size: " + std::to_string(display.H) + " x " +
                              std::to_string(display.W) +
                              " pixels are more than the CUDA kernel counts; call it on the CPU");
}

void launch_fused_cam(const LayerCamPlan& plan, const Display& display, void* workspace,
                      void* stream) {
  const CudaLayerCamParams p = launch_layer_cam(plan, workspace, stream);
  if (p.display.result != nullptr) return;
  const auto on = static_cast<cudaStream_t>(stream);
  p.dtype == Dtype::kF64 ? launch_show<double>(display, p, on) : launch_show<float>(display, p, on);
}

}  // namespace camfuse::cuda
