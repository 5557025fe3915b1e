// What the kernels compute, in f64 and as plainly as can be.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/layer_cam_args.h"
#include "layers.h"

namespace standalone {

using camfuse::Rule;

// The weight of a channel, from its planes of A and G.
inline double channel_weight(Rule rule, const double* a, const double* g, int64_t plane,
                             double given) {
  double sum_a = 0, sum_g = 0, sum_ga = 0, alpha = 0;
  for (int64_t p = 0; p < plane; ++p) sum_a += a[p], sum_g += g[p], sum_ga += g[p] * a[p];
  switch (rule) {
    case Rule::kGradCam: return sum_g / static_cast<double>(plane);
    case Rule::kXGradCam: return sum_ga / (sum_a + camfuse::kXGradCamEpsilon);
    case Rule::kGradCamPlusPlus:
      for (int64_t p = 0; p < plane; ++p) {
        const double square = g[p] * g[p];
        const double divisor =
            2 * square + square * g[p] * sum_a + camfuse::kGradCamPlusPlusEpsilon;
        if (g[p] > 0) alpha += g[p] * (square / divisor);
      }
      return alpha;
    default: return given;
  }
}

struct Map {
  std::vector<double> at;  // [h * w]
  double scale = 0;        // the largest sum over channels of the terms' magnitudes
};

// The map of one sample. `weights` are those of its channels that the caller gives.
inline Map layer_cam(Rule rule, const Layer& layer, const double* A, const double* G,
                     const double* weights) {
  const int64_t plane = layer.plane();
  Map map{std::vector<double>(static_cast<std::size_t>(plane)), 0};
  std::vector<double> magnitudes(map.at.size());
  for (int64_t c = 0; c < layer.C; ++c) {
    const double* const a = A + c * plane;
    const double* const g = G + c * plane;
    const bool product = rule == Rule::kHiResCam || rule == Rule::kElementwise;
    const bool positive = rule == Rule::kLayerCam;
    const double weight = product || positive ? 0 : channel_weight(rule, a, g, plane, weights[c]);
    for (int64_t p = 0; p < plane; ++p) {
      double term = a[p] * weight;
      if (product) term = a[p] * g[p];
      if (positive) term = a[p] * std::max(g[p], 0.0);
      const auto at = static_cast<std::size_t>(p);
      map.at[at] += rule == Rule::kElementwise ? std::max(term, 0.0) : term;
      magnitudes[at] += std::fabs(term);
    }
  }
  map.scale = *std::max_element(magnitudes.begin(), magnitudes.end());
  return map;
}

// Linear interpolation with half-pixel centres: the value at `i` of `n` along a side of `size`.
template <class At>
double interpolated(int64_t i, int64_t n, int64_t size, const At& at) {
  const double centre = std::max(
      (static_cast<double>(i) + 0.5) * static_cast<double>(size) / static_cast<double>(n) - 0.5,
      0.0);
  const auto first = std::min(static_cast<int64_t>(centre), size - 1);
  const double share = std::min(centre - static_cast<double>(first), 1.0);
  return at(first) * (1 - share) + at(std::min(first + 1, size - 1)) * share;
}

// A map [h, w] as displayed at [H, W], in [0, 1].
inline std::vector<double> shown(std::vector<double> map, int64_t h, int64_t w, int64_t H,
                                 int64_t W, bool relu) {
  if (relu) {
    for (double& value : map) value = std::max(value, 0.0);
  }
  const auto [low, high] = std::minmax_element(map.begin(), map.end());
  const double from = *low, to = *high;
  for (double& value : map) value = from == to ? 0 : (value - from) / (to - from);
  std::vector<double> picture(static_cast<std::size_t>(H * W));
  for (int64_t y = 0; y < H; ++y) {
    for (int64_t x = 0; x < W; ++x) {
      picture[static_cast<std::size_t>(y * W + x)] = interpolated(y, H, h, [&](int64_t row) {
        return interpolated(x, W, w, [&](int64_t column) {
          return map[static_cast<std::size_t>(row * w + column)];
        });
      });
    }
  }
  return picture;
}

}  // namespace standalone
