// Kernels of render_frames. One prepares what all frames of a call share, the other renders them.
//
// A thread paints a column of the canvas, kGroup pixels wide, from top to bottom of a chunk of
// rows: one row (rgb24) or two (YUV) at a time, a cell. All of a cell is made in registers, in the
// order of paint: background and photographs, maps, text. Then it is stored, once.
//
//     canvas        group 0   group 1  ...     cell, 24 bytes
//     chunk 0      | thread  | thread |        rgb24   R G B of 8 pixels
//     chunk 1      |         |        |        YUV     Y of 8 pixels, Y of the 8 below,
//     ...                                              U of 2 x 2 pixels (4), V (4)
//
// Going down, a thread keeps the map's columns as they are between two rows of the map: most rows
// of a panel lie between the same two. Formulas are those of common/levels.h and blending.h, as on
// the CPU, and with -fmad=false results are equal to its results.
#pragma once

#include <limits.h>

#include "common/blending.h"
#include "common/levels.h"
#include "common/render_frames_args.h"
#include "cuda/device.cuh"

namespace camfuse::cuda {

constexpr int kFrameThreads = 128;  // of a block
constexpr int kGroup = 8;           // pixels
constexpr int kCellWords = 6;

struct FramePanel {
  int32_t kind, map, top, left;
};

struct FrameStrip {
  int32_t top, height, row;
};

// A map of one frame, and the levels of its own range.
template <class T>
struct FrameMap {
  int64_t offset;
  int32_t h, w;
  LevelRange<T> levels;
};

// The panels that show a map and may reach into a group of a chunk: first .. last - 1.
struct Cover {
  int32_t first, last;
};

// Note: [Photograph with margins]
// The photograph's terms of the blend lie in rows of `pitch` pixels, whose first is kGroup pixels
// left of the panel, so that a group that a panel covers in part reads beyond it, and loads of
// groups that are aligned to the panel are aligned to 16 bytes.
//
//     rgb24   [Hp, pitch] of two words     R | G << 16, B
//     YUV     [Hp, pitch / 2] words        Y | Y of the right neighbour << 16
//             [Hp / 2, pitch / 2] words    U | V << 16

// What both kernels need. Sizes as in RenderFramesArgs.
template <class T>
struct FrameParams {
  PixelLayout layout;
  int32_t height, width, panel_height, panel_width, map_count;
  int32_t groups, chunks, chunk_rows;  // chunk_rows is even
  int32_t pitch;
  int32_t yuv_shift;

  // Made by the first kernel for the second.
  FrameMap<T>* maps;             // [N, V]
  LevelRange<T>* global_levels;  // [V]
  FramePanel* panels;            // [panel_count]
  int32_t* text_row;             // [H]: the overlay's row on this row of the canvas, or -1
  Cover* covers;                 // [chunks, groups]
  uint32_t* colours;             // rgb24 [256, 2]: R | G << 16, B; else [256]
  uint32_t* photograph;
  uint32_t* still;  // [H or H / 2, groups, kCellWords]: cells of background and photographs
};

// --- Once per call -----------------------------------------------------------------------------

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

// --- Every frame -------------------------------------------------------------------------------

template <class T>
struct RenderFramesParams {
  FrameParams<T> frame;
  int32_t frame_blocks;    // blocks of each frame
  const T* maps;           // [S]
  T floor;                 // the smallest value that a map keeps
  const uint8_t* overlay;  // [N, overlay_rows, W, 2], or null
  int32_t overlay_rows;
  int64_t frame_bytes;
  uint8_t* out;  // [N, frame_bytes]
};

struct Cell {
  uint32_t words[kCellWords];
};

// Whether `at` is aligned to kBytes.
template <int kBytes>
__device__ __forceinline__ bool is_aligned(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % kBytes == 0;
}

// Words that earlier kernels wrote, 16 bytes at once where they are aligned so.
__device__ __forceinline__ Pack<uint32_t, 4> load_words(const uint32_t* from) {
  if (is_aligned<16>(from)) return load_pack<4>(from);
  Pack<uint32_t, 4> words;
#pragma unroll
  for (int i = 0; i < 4; ++i) words.at[i] = __ldg(from + i);
  return words;
}

// `count` bytes of 16, the others 0.
__device__ __forceinline__ Pack<uint32_t, 4> load_bytes(const uint8_t* from, int32_t count) {
  if (count == 16 && is_aligned<4>(from)) {
    return load_words(reinterpret_cast<const uint32_t*>(from));
  }
  Pack<uint32_t, 4> words{};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i < count) words.at[i / 4] |= static_cast<uint32_t>(__ldg(from + i)) << i % 4 * 8;
  }
  return words;
}

// The first `count` bytes of words, as wide as they are aligned.
template <int kWords>
__device__ __forceinline__ void store_bytes(uint8_t* to, const uint32_t (&words)[kWords],
                                            int32_t count) {
  if (count == 4 * kWords && kWords % 2 == 0 && is_aligned<8>(to)) {
#pragma unroll
    for (int i = 0; i < kWords; i += 2) {
      const Pack<uint32_t, 2> pair{words[i], words[i + 1]};
      store_pack<2>(reinterpret_cast<uint32_t*>(to) + i, pair);
    }
  } else if (count == 4 * kWords && is_aligned<4>(to)) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      store_pack<1>(reinterpret_cast<uint32_t*>(to) + i, Pack<uint32_t, 1>{words[i]});
    }
  } else if (count == 4 * kWords && is_aligned<2>(to)) {
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) {
      const auto half = static_cast<uint16_t>(words[i / 2] >> i % 2 * 16);
      store_pack<1>(reinterpret_cast<uint16_t*>(to) + i, Pack<uint16_t, 1>{half});
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4 * kWords; ++i) {
      if (i < count) to[i] = static_cast<uint8_t>(words[i / 4] >> i % 4 * 8);
    }
  }
}

__device__ __forceinline__ uint32_t byte_of(uint32_t word, int i) { return word >> 8 * i & 0xff; }

// kGroup columns of a map, widened to a panel, and the levels of one row after another.
template <class T>
class MapColumns {
 public:
  // Columns x .. x + kGroup - 1 of the canvas; those beyond the panel repeat its border.
  __device__ __forceinline__ void enter(const RenderFramesParams<T>& p, const FramePanel& panel,
                                        int64_t frame, int32_t x) {
    const FrameMap<T> map = p.frame.maps[frame * p.frame.map_count + panel.map];
    levels_ = panel.kind == static_cast<int32_t>(Panel::kLayer) ? map.levels
                                                                : p.frame.global_levels[panel.map];
    map_ = p.maps + map.offset;
    h_ = map.h, w_ = map.w;
    first_ = x - panel.left;
    row_ = held_ = kNone;
  }

  // The levels on a row of the panel.
  __device__ __forceinline__ void levels(const RenderFramesParams<T>& p, int32_t row,
                                         int32_t (&levels)[kGroup]) {
    if (row == row_ + 1) {
      position_.advance();
    } else {
      position_ = Position<T>(static_cast<uint32_t>(row), static_cast<uint32_t>(h_),
                              static_cast<uint32_t>(p.frame.panel_height));
    }
    row_ = row;
    if (held_ != position_.index()) hold(p, position_.index());
    const T weight = position_.weight();
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      levels[k] = level_of(interpolated(upper_[k], difference_[k], weight), levels_);
    }
  }

 private:
  static constexpr int32_t kNone = -2;  // no row, nor the one before a row

  // The columns as they are between row y of the map and the next.
  __device__ __forceinline__ void hold(const RenderFramesParams<T>& p, int32_t y) {
    held_ = y;
    const T* const upper = map_ + static_cast<int64_t>(y) * w_;
    const T* const lower = y + 1 < h_ ? upper + w_ : upper;
    Position<T> column(static_cast<uint32_t>(first_ > 0 ? first_ : 0), static_cast<uint32_t>(w_),
                       static_cast<uint32_t>(p.frame.panel_width));
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const int32_t left = column.index() < w_ ? column.index() : w_ - 1;
      const int32_t right = left + 1 < w_ ? left + 1 : left;
      const T weight = column.weight();
      const auto widened = [&](const T* row) {
        const T a = at_least(__ldg(row + left), p.floor), b = at_least(__ldg(row + right), p.floor);
        return interpolated(a, b - a, weight);
      };
      upper_[k] = widened(upper);
      difference_[k] = widened(lower) - upper_[k];
      if (first_ + k >= 0) column.advance();
    }
  }

  const T* map_;  // [h, w]
  int32_t h_, w_;
  LevelRange<T> levels_;
  int32_t first_;         // column of the panel
  Position<T> position_;  // of row_
  int32_t row_;           // of the panel
  int32_t held_;          // row of the map
  T upper_[kGroup], difference_[kGroup];
};

// Where the photograph's terms of a group begin that lies `column` pixels right of the panel's left
// border; words_of_pixel * kGroup words.
template <class T>
__device__ __forceinline__ const uint32_t* photograph_words(const FrameParams<T>& f, int32_t row,
                                                            int32_t column) {
  const int64_t pixel = static_cast<int64_t>(row) * f.pitch + kGroup + column;
  return f.photograph + (is_subsampled(f.layout) ? pixel / 2 : 2 * pixel);
}

// One cell of a panel that shows a map.
template <PixelLayout kLayout, class T>
__device__ __forceinline__ Cell blend_cell(const RenderFramesParams<T>& p, const uint32_t* colours,
                                           MapColumns<T>& columns, int32_t row, int32_t column) {
  Cell cell{};
  if constexpr (kLayout == PixelLayout::kRgb24) {
    int32_t levels[kGroup];
    columns.levels(p, row, levels);
    const uint32_t* const photograph = photograph_words(p.frame, row, column);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const Pack<uint32_t, 2> term = load_pack<2>(photograph + 2 * k);
      const Pack<uint32_t, 2> colour = load_pack<2>(colours + 2 * levels[k]);
      const uint32_t sums[3] = {(term.at[0] & 0xffff), term.at[0] >> 16, term.at[1]};
      const uint32_t parts[3] = {(colour.at[0] & 0xffff), colour.at[0] >> 16, colour.at[1]};
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const int byte = 3 * k + c;
        cell.words[byte / 4] |= static_cast<uint32_t>(blended(sums[c], parts[c])) << byte % 4 * 8;
      }
    }
  } else {
    uint32_t u[kGroup / 2] = {}, v[kGroup / 2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int32_t levels[kGroup];
      columns.levels(p, row + r, levels);
      const Pack<uint32_t, 4> terms = load_words(photograph_words(p.frame, row + r, column));
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        const uint32_t colour = colours[levels[k]];
        const uint32_t term = k % 2 == 0 ? terms.at[k / 2] & 0xffff : terms.at[k / 2] >> 16;
        const uint32_t luma = blended(term, luma_term(colour, p.frame.yuv_shift));
        cell.words[2 * r + k / 4] |= luma << k % 4 * 8;
        u[k / 2] += u_bits(colour);
        v[k / 2] += v_bits(colour);
      }
    }
    const Pack<uint32_t, 4> terms =
        load_words(photograph_words(p.frame, p.frame.panel_height + row / 2, column));
#pragma unroll
    for (int k = 0; k < kGroup / 2; ++k) {
      const uint32_t u_level = blended(terms.at[k] & 0xffff, u_term(u[k], p.frame.yuv_shift));
      const uint32_t v_level = blended(terms.at[k] >> 16, v_term(v[k], p.frame.yuv_shift));
      cell.words[4] |= u_level << k * 8;
      cell.words[5] |= v_level << k * 8;
    }
  }
  return cell;
}

// All ones in bytes begin .. end - 1 of a word.
__device__ __forceinline__ uint32_t byte_mask(int32_t begin, int32_t end) {
  const auto below = [](int32_t count) {
    return count <= 0 ? 0u : count >= 4 ? ~0u : (1u << 8 * count) - 1;
  };
  return below(end) & ~below(begin);
}

// Puts pixels begin .. end - 1 of `over` over those of `cell`; both even for YUV.
template <PixelLayout kLayout>
__device__ __forceinline__ void cover_cell(Cell& cell, const Cell& over, int32_t begin,
                                           int32_t end) {
#pragma unroll
  for (int i = 0; i < kCellWords; ++i) {
    uint32_t mask;
    if constexpr (kLayout == PixelLayout::kRgb24) {
      mask = byte_mask(3 * begin - 4 * i, 3 * end - 4 * i);
    } else if (i < 4) {
      mask = byte_mask(begin - i % 2 * 4, end - i % 2 * 4);
    } else {
      mask = byte_mask(begin / 2, end / 2);
    }
    cell.words[i] = (cell.words[i] & ~mask) | (over.words[i] & mask);
  }
}

// A pixel's text: grey and alpha.
struct Ink {
  uint32_t grey, alpha;
};
__device__ __forceinline__ Ink ink_of(const Pack<uint32_t, 4>& text, int pixel) {
  const uint32_t word = text.at[pixel / 2] >> pixel % 2 * 16;
  return {byte_of(word, 0), byte_of(word, 1)};
}

// Whether any pixel's text is more than transparent.
__device__ __forceinline__ bool has_ink(const Pack<uint32_t, 4>& text) {
  return ((text.at[0] | text.at[1] | text.at[2] | text.at[3]) & 0xff00ff00) != 0;
}

// Replaces byte i of every word by change(byte, i), i counting through all of them.
template <int kWords, class Change>
__device__ __forceinline__ void change_bytes(uint32_t* words, const Change& change) {
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    uint32_t changed = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const uint8_t byte = change(static_cast<uint8_t>(byte_of(words[w], b)), 4 * w + b);
      changed |= static_cast<uint32_t>(byte) << 8 * b;
    }
    words[w] = changed;
  }
}

// Text over one cell, `row` being that of the overlay.
template <PixelLayout kLayout, class T>
__device__ __forceinline__ void draw_text(const RenderFramesParams<T>& p, int64_t frame,
                                          int32_t row, int32_t x, int32_t pixels, Cell& cell) {
  const uint8_t* const text =
      p.overlay + 2 * ((frame * p.overlay_rows + row) * static_cast<int64_t>(p.frame.width) + x);
  const Pack<uint32_t, 4> upper = load_bytes(text, 2 * pixels);
  if constexpr (kLayout == PixelLayout::kRgb24) {
    if (!has_ink(upper)) return;
    change_bytes<kCellWords>(cell.words, [&](uint8_t level, int i) {
      const Ink ink = ink_of(upper, i / 3);
      return with_text_rgb(level, static_cast<int32_t>(ink.grey), static_cast<int32_t>(ink.alpha));
    });
  } else {
    const Pack<uint32_t, 4> lower = load_bytes(text + 2 * p.frame.width, 2 * pixels);
    if (!has_ink(upper) && !has_ink(lower)) return;
    change_bytes<4>(cell.words, [&](uint8_t level, int i) {
      const Ink ink = ink_of(i < kGroup ? upper : lower, i % kGroup);
      return with_text_luma(level, static_cast<float>(ink.grey), static_cast<float>(ink.alpha));
    });
    change_bytes<2>(cell.words + 4, [&](uint8_t level, int i) {
      const uint32_t above = upper.at[i % 4], below = lower.at[i % 4];
      const uint32_t alpha =
          byte_of(above, 1) + byte_of(above, 3) + byte_of(below, 1) + byte_of(below, 3);
      return with_text_chroma(level, static_cast<int32_t>(alpha));
    });
  }
}

// The first `pixels` columns of a cell, to row y of a frame (and the next, for YUV).
template <PixelLayout kLayout, class T>
__device__ __forceinline__ void store_cell(const FrameParams<T>& f, uint8_t* frame, int32_t y,
                                           int32_t x, int32_t pixels, const Cell& cell) {
  const uint32_t(&w)[kCellWords] = cell.words;
  const int64_t width = f.width;
  if constexpr (kLayout == PixelLayout::kRgb24) {
    store_bytes(frame + 3 * (y * width + x), w, 3 * pixels);
  } else {
    const uint32_t upper[2] = {w[0], w[1]}, lower[2] = {w[2], w[3]};
    store_bytes(frame + y * width + x, upper, pixels);
    store_bytes(frame + (y + 1) * width + x, lower, pixels);
    uint8_t* const chroma = frame + f.height * width;
    if constexpr (kLayout == PixelLayout::kNv12) {
      const auto pair = [&](int i) { return byte_of(w[4], i) | byte_of(w[5], i) << 8; };
      const uint32_t both[2] = {pair(0) | pair(1) << 16, pair(2) | pair(3) << 16};
      store_bytes(chroma + y / 2 * width + x, both, pixels);
    } else {
      uint8_t* const u_out = chroma + y / 2 * (width / 2) + x / 2;
      const uint32_t u[1] = {w[4]}, v[1] = {w[5]};
      store_bytes(u_out, u, pixels / 2);
      store_bytes(u_out + f.height / 2 * (width / 2), v, pixels / 2);
    }
  }
}

template <class T, PixelLayout kLayout>
__global__ void __launch_bounds__(kFrameThreads)
    render_all_frames(const __grid_constant__ RenderFramesParams<T> p) {
  const FrameParams<T>& f = p.frame;
  constexpr bool kYuv = is_subsampled(kLayout);
  constexpr uint32_t kTableWords = kYuv ? 256 : 512;
  uint32_t* const colours = shared_memory<uint32_t>();
  for (uint32_t i = threadIdx.x; i < kTableWords; i += kFrameThreads) {
    colours[i] = __ldg(f.colours + i);
  }
  __syncthreads();

  const auto frame_blocks = static_cast<uint32_t>(p.frame_blocks);
  const auto groups = static_cast<uint32_t>(f.groups);
  const int64_t frame = blockIdx.x / frame_blocks;
  const uint32_t place = blockIdx.x % frame_blocks * kFrameThreads + threadIdx.x;
  const auto chunk = static_cast<int32_t>(place / groups);
  if (chunk >= f.chunks) return;

  const auto group = static_cast<int32_t>(place % groups);
  const int32_t x = group * kGroup;
  const int32_t pixels = f.width - x < kGroup ? f.width - x : kGroup;
  const int32_t bottom =
      f.height - chunk * f.chunk_rows < f.chunk_rows ? f.height : (chunk + 1) * f.chunk_rows;
  const Cover cover = f.covers[place];
  uint8_t* const out = p.out + frame * p.frame_bytes;
  MapColumns<T> columns;
  int32_t entered = -1;  // the panel whose columns those are
  constexpr int32_t kRows = kYuv ? 2 : 1;
  for (int32_t y = chunk * f.chunk_rows; y < bottom; y += kRows) {
    const auto still = [&] {
      const int64_t at = static_cast<int64_t>(y / kRows) * f.groups + group;
      Cell cell;
#pragma unroll
      for (int i = 0; i < kCellWords; i += 2) {
        const Pack<uint32_t, 2> pair = load_pack<2>(f.still + at * kCellWords + i);
        cell.words[i] = pair.at[0], cell.words[i + 1] = pair.at[1];
      }
      return cell;
    };
    Cell cell;
    bool painted = false;
    for (int32_t i = cover.first; i < cover.last; ++i) {
      const Pack<int32_t, 4> loaded = load_pack<4>(&f.panels[i].kind);
      const FramePanel panel{loaded.at[0], loaded.at[1], loaded.at[2], loaded.at[3]};
      const int32_t row = y - panel.top, column = x - panel.left;
      if (row < 0 || row >= f.panel_height || column <= -kGroup || column >= f.panel_width) {
        continue;
      }
      if (entered != i) columns.enter(p, panel, frame, x);
      entered = i;
      const Cell blend = blend_cell<kLayout>(p, colours, columns, row, column);
      if (column >= 0 && column + kGroup <= f.panel_width) {
        cell = blend;
      } else {
        if (!painted) cell = still();
        const int32_t end = f.panel_width - column;
        cover_cell<kLayout>(cell, blend, column < 0 ? -column : 0, end < kGroup ? end : kGroup);
      }
      painted = true;
    }
    if (!painted) cell = still();
    const int32_t text_row = p.overlay == nullptr ? -1 : f.text_row[y];
    if (text_row >= 0) draw_text<kLayout>(p, frame, text_row, x, pixels, cell);
    store_cell<kLayout>(f, out, y, x, pixels, cell);
  }
}

}  // namespace camfuse::cuda
