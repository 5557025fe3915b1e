// The choices that Python, the CPU and the CUDA code share, by number. Torch-free.
#pragma once

namespace camfuse {

// How activations A and gradients G of a layer become a map. Sums run over the positions p of a
// channel's plane; see python/camfuse/reference.py for each formula and its source.
enum class Rule : int {
  kGradCam = 0,
  kGradCamPlusPlus = 1,
  kXGradCam = 2,
  kHiResCam = 3,
  kElementwise = 4,
  kLayerCam = 5,
  kWeighted = 6,
};
constexpr int kRuleCount = 7;

// What a panel of a video frame shows.
enum class Panel : int {
  kSource = 0,  // the photograph
  kLayer = 1,   // the map over the photograph, normalised by the layer's own range
  kGlobal = 2,  // the same, normalised by the range over all layers
};

// How the pixels of a frame lie in memory.
enum class PixelLayout : int {
  kRgb24 = 0,  // [H, W, 3]
  kI420 = 1,   // Y [H, W], then U and V [H/2, W/2]; BT.709, limited range
};

}  // namespace camfuse
