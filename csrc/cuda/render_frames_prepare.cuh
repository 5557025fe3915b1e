// The first kernel of render_frames: what all frames of a call share.
#pragma once

#include <limits.h>

#include "common/blending.h"
#include "cuda/render_frames_params.cuh"

namespace camfuse::cuda {

// Lists that come from the host travel in the parameters, which may take 32,764 bytes; longer ones
// in several launches, each of which adds its part to what those before it made.
constexpr int kPartMaps = 1280, kPartPanels = 256, kPartStrips = 256;

struct MapPlace {
  int64_t offset;
  int32_t h, w;
};

template <class T>
struct PrepareParams {
  FrameParams<T> frame;
  const T* ranges;         // [N, V, 2]
  const T* global_ranges;  // [V, 2]
  bool relu;
  const uint8_t* source;   // [Hp, Wp, 3]
  const uint8_t* colours;  // [256, 3]
  int32_t colour_weight, background;

  bool is_first;  // of the launches
  int32_t first_map, map_count, first_panel, panel_count, strip_count;
  MapPlace maps[kPartMaps];
  FramePanel panels[kPartPanels];
  FrameStrip strips[kPartStrips];
};
static_assert(sizeof(PrepareParams<double>) <= 32764);

// Calls run(i) for all i < count, spread over all threads. `count` is below 2^31.
template <class Run>
__device__ __forceinline__ void for_all(uint32_t count, const Run& run) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    run(i);
  }
}

// 2 x 2 pixels, in 1/256 of a level.
struct YuvSamples {
  int32_t luma[2][2], u, v;
};

// `source` points to the upper left pixel of rows of `width` pixels.
__device__ __forceinline__ YuvSamples yuv_samples(const uint8_t* source, int32_t width) {
  YuvSamples samples;
  int32_t red = 0, green = 0, blue = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const uint8_t* const pixel = source + 3 * (r * static_cast<int64_t>(width) + c);
      samples.luma[r][c] =
          luma_sample(convert(fixed_row(luma_row()), pixel[0], pixel[1], pixel[2]));
      red += pixel[0], green += pixel[1], blue += pixel[2];
    }
  }
  const FixedYuvRow cb = fixed_row(cb_row()), cr = fixed_row(cr_row());
  samples.u = chroma_sample(convert(cb, red, green, blue) + 3 * cb.offset);
  samples.v = chroma_sample(convert(cr, red, green, blue) + 3 * cr.offset);
  return samples;
}

// The last photograph of this launch at a place of the canvas, or null.
template <class T>
__device__ __forceinline__ const uint8_t* photograph_at(const PrepareParams<T>& p, int32_t y,
                                                        int32_t x) {
  for (int32_t i = p.panel_count - 1; i >= 0; --i) {
    const FramePanel& panel = p.panels[i];
    const int32_t row = y - panel.top, column = x - panel.left;
    if (panel.kind == static_cast<int32_t>(Panel::kSource) && row >= 0 &&
        row < p.frame.panel_height && column >= 0 && column < p.frame.panel_width) {
      return p.source + 3 * (row * static_cast<int64_t>(p.frame.panel_width) + column);
    }
  }
  return nullptr;
}

template <class T>
__device__ __forceinline__ void prepare_still_rgb(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const auto row_pixels = static_cast<uint32_t>(f.groups * kGroup);
  const auto y = static_cast<int32_t>(i / row_pixels), x = static_cast<int32_t>(i % row_pixels);
  const uint8_t* const pixel = photograph_at(p, y, x);
  if (pixel == nullptr && !p.is_first) return;
  uint8_t* const to = reinterpret_cast<uint8_t*>(f.still) + 3 * static_cast<int64_t>(i);
  for (int c = 0; c < 3; ++c) {
    to[c] = pixel == nullptr ? static_cast<uint8_t>(p.background) : pixel[c];
  }
}

// 2 x 2 pixels.
template <class T>
__device__ __forceinline__ void prepare_still_yuv(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const auto row_pairs = static_cast<uint32_t>(f.groups * kGroup / 2);
  const uint32_t row = i / row_pairs, column = i % row_pairs;
  const uint8_t* const source =
      photograph_at(p, static_cast<int32_t>(2 * row), static_cast<int32_t>(2 * column));
  if (source == nullptr && !p.is_first) return;
  constexpr uint32_t kPairs = kGroup / 2;
  const uint32_t cell = row * static_cast<uint32_t>(f.groups) + column / kPairs;
  const uint32_t pair = column % kPairs;
  uint8_t* const to = reinterpret_cast<uint8_t*>(f.still + static_cast<int64_t>(cell) * kCellWords);
  uint8_t luma[2][2], u = 128, v = 128;
  if (source == nullptr) {
    luma[0][0] = luma[0][1] = luma[1][0] = luma[1][1] = background_luma(p.background);
  } else {
    const YuvSamples samples = yuv_samples(source, f.panel_width);
    for (int r = 0; r < 2; ++r) {
      for (int c = 0; c < 2; ++c) luma[r][c] = plain_sample(samples.luma[r][c]);
    }
    u = plain_sample(samples.u), v = plain_sample(samples.v);
  }
  for (uint32_t r = 0; r < 2; ++r) {
    for (uint32_t c = 0; c < 2; ++c) to[r * kGroup + 2 * pair + c] = luma[r][c];
  }
  to[2 * kGroup + pair] = u;
  to[2 * kGroup + kPairs + pair] = v;
}

// A pixel; see Note: [Photograph with margins].
template <class T>
__device__ __forceinline__ void prepare_photograph_rgb(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const auto pitch = static_cast<uint32_t>(f.pitch);
  const uint32_t row = i / pitch;
  const int32_t column = static_cast<int32_t>(i % pitch) - kGroup;
  uint32_t terms[3] = {};
  if (column >= 0 && column < f.panel_width) {
    const uint8_t* const pixel =
        p.source + 3 * (row * static_cast<int64_t>(f.panel_width) + column);
    for (int c = 0; c < 3; ++c) terms[c] = weighted_level(pixel[c], 256 - p.colour_weight);
  }
  f.photograph[2 * static_cast<int64_t>(i)] = terms[0] | terms[1] << 16;
  f.photograph[2 * static_cast<int64_t>(i) + 1] = terms[2];
}

// 2 x 2 pixels.
template <class T>
__device__ __forceinline__ void prepare_photograph_yuv(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const auto row_words = static_cast<uint32_t>(f.pitch / 2);
  const uint32_t row = i / row_words, word = i % row_words;
  const int32_t column = static_cast<int32_t>(2 * word) - kGroup;
  const int32_t weight = 256 - p.colour_weight;
  uint32_t luma[2] = {}, chroma = 0;
  if (column >= 0 && column < f.panel_width) {
    const uint8_t* const source =
        p.source + 3 * (2 * row * static_cast<int64_t>(f.panel_width) + column);
    const YuvSamples samples = yuv_samples(source, f.panel_width);
    const auto pair = [&](int32_t low, int32_t high) {
      return weighted_sample(low, weight) | static_cast<uint32_t>(weighted_sample(high, weight))
                                                << 16;
    };
    for (int r = 0; r < 2; ++r) luma[r] = pair(samples.luma[r][0], samples.luma[r][1]);
    chroma = pair(samples.u, samples.v);
  }
  uint32_t* const to = f.photograph + word;
  for (uint32_t r = 0; r < 2; ++r) to[static_cast<int64_t>(2 * row + r) * row_words] = luma[r];
  to[(f.panel_height + static_cast<int64_t>(row)) * row_words] = chroma;
}

template <class T>
__device__ __forceinline__ void prepare_colour(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const uint8_t* const colour = p.colours + 3 * i;
  if (is_subsampled(f.layout)) {
    f.colours[i] = yuv_colour(colour, p.colour_weight, f.yuv_shift);
    return;
  }
  const auto weight = static_cast<uint32_t>(p.colour_weight);
  f.colours[2 * i] = colour[0] * weight | colour[1] * weight << 16;
  f.colours[2 * i + 1] = colour[2] * weight;
}

template <class T>
__device__ __forceinline__ void prepare_text_row(const PrepareParams<T>& p, uint32_t i) {
  const auto y = static_cast<int32_t>(i);
  int32_t row = p.is_first ? -1 : p.frame.text_row[y];
  for (int32_t s = 0; s < p.strip_count; ++s) {
    const FrameStrip& strip = p.strips[s];
    if (y >= strip.top && y < strip.top + strip.height) row = strip.row + (y - strip.top);
  }
  p.frame.text_row[y] = row;
}

template <class T>
__device__ __forceinline__ void prepare_cover(const PrepareParams<T>& p, uint32_t i) {
  const FrameParams<T>& f = p.frame;
  const auto groups = static_cast<uint32_t>(f.groups);
  const auto top = static_cast<int32_t>(i / groups) * f.chunk_rows;
  const auto left = static_cast<int32_t>(i % groups) * kGroup;
  Cover cover = p.is_first ? Cover{INT_MAX, 0} : f.covers[i];
  for (int32_t n = 0; n < p.panel_count; ++n) {
    const FramePanel& panel = p.panels[n];
    if (panel.kind == static_cast<int32_t>(Panel::kSource) || panel.top >= top + f.chunk_rows ||
        panel.top + f.panel_height <= top || panel.left >= left + kGroup ||
        panel.left + f.panel_width <= left) {
      continue;
    }
    const int32_t index = p.first_panel + n;
    if (index < cover.first) cover.first = index;
    cover.last = index + 1;
  }
  f.covers[i] = cover;
}

template <class T>
__global__ void __launch_bounds__(kFrameThreads)
    prepare_frames(const __grid_constant__ PrepareParams<T> p) {
  const FrameParams<T>& f = p.frame;
  const auto rows = static_cast<uint32_t>(f.height);
  const auto groups = static_cast<uint32_t>(f.groups);
  const auto chunks = static_cast<uint32_t>(f.chunks);
  const auto panel_rows = static_cast<uint32_t>(f.panel_height);
  const auto pitch = static_cast<uint32_t>(f.pitch);
  const bool yuv = is_subsampled(f.layout);

  for_all(static_cast<uint32_t>(p.map_count), [&](uint32_t i) {
    const int64_t n = p.first_map + static_cast<int64_t>(i);
    const MapPlace& place = p.maps[i];
    f.maps[n] = {place.offset, place.h, place.w,
                 level_range(p.ranges[2 * n], p.ranges[2 * n + 1], p.relu)};
  });
  for_all(static_cast<uint32_t>(p.panel_count),
          [&](uint32_t i) { f.panels[p.first_panel + static_cast<int64_t>(i)] = p.panels[i]; });
  for_all(rows, [&](uint32_t i) { prepare_text_row(p, i); });
  for_all(chunks * groups, [&](uint32_t i) { prepare_cover(p, i); });
  if (yuv) {
    for_all(rows / 2 * groups * (kGroup / 2), [&](uint32_t i) { prepare_still_yuv(p, i); });
  } else {
    for_all(rows * groups * kGroup, [&](uint32_t i) { prepare_still_rgb(p, i); });
  }
  if (!p.is_first) return;

  for_all(static_cast<uint32_t>(f.map_count), [&](uint32_t v) {
    f.global_levels[v] = level_range(p.global_ranges[2 * v], p.global_ranges[2 * v + 1], p.relu);
  });
  for_all(256, [&](uint32_t i) { prepare_colour(p, i); });
  if (yuv) {
    for_all(panel_rows / 2 * (pitch / 2), [&](uint32_t i) { prepare_photograph_yuv(p, i); });
  } else {
    for_all(panel_rows * pitch, [&](uint32_t i) { prepare_photograph_rgb(p, i); });
  }
}

}  // namespace camfuse::cuda
