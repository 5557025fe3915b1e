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
  // The same sums over the magnitudes of their terms: the scale of a map's rounding noise.
  kGradCamMagnitude = 7,
  kGradCamPlusPlusMagnitude = 8,
  kXGradCamMagnitude = 9,
  kHiResCamMagnitude = 10,
  kWeightedMagnitude = 11,
};
constexpr int kRuleCount = 12;

// The rule whose terms, or whose channel weights, this one uses.
constexpr Rule base_of(Rule rule) {
  switch (rule) {
    case Rule::kGradCamMagnitude: return Rule::kGradCam;
    case Rule::kGradCamPlusPlusMagnitude: return Rule::kGradCamPlusPlus;
    case Rule::kXGradCamMagnitude: return Rule::kXGradCam;
    case Rule::kHiResCamMagnitude: return Rule::kHiResCam;
    case Rule::kWeightedMagnitude: return Rule::kWeighted;
    default: return rule;
  }
}

// What the rows of principal_map are made of: activations A, gradients G, channel weights w.
enum class Terms : int {
  kActivation = 0,         // A
  kProduct = 1,            // G * A
  kPositiveProduct = 2,    // max(G * A, 0)
  kPositiveGradient = 3,   // max(G, 0) * A
  kGradientMagnitude = 4,  // |G| * A
  kWeighted = 5,           // w * A
};
constexpr int kTermsCount = 6;

constexpr bool reads_gradients(Terms terms) {
  return terms != Terms::kActivation && terms != Terms::kWeighted;
}

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
  kNv12 = 2,   // the same values: Y [H, W], then U and V by turns [H/2, W/2, 2]
};

}  // namespace camfuse
