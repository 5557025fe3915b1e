// The second kernel of render_frames, which renders all frames of a call.
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

#include "common/blending.h"
#include "cuda/render_frames_params.cuh"
#include "cuda/words.cuh"

namespace camfuse::cuda {

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

// Where a row of the photograph's terms has those of a pixel; see Note: [Photograph with margins].
template <PixelLayout kLayout, class T>
__device__ __forceinline__ const uint32_t* photograph_words(const FrameParams<T>& f, int32_t row,
                                                            int32_t column) {
  const int64_t pixel = static_cast<int64_t>(row) * f.pitch + kGroup + column;
  return f.photograph + (is_subsampled(kLayout) ? pixel / 2 : 2 * pixel);
}

// One cell of a panel that shows a map.
template <PixelLayout kLayout, class T>
__device__ __forceinline__ Cell blend_cell(const RenderFramesParams<T>& p, const uint32_t* colours,
                                           MapColumns<T>& columns, int32_t row, int32_t column) {
  Cell cell{};
  if constexpr (kLayout == PixelLayout::kRgb24) {
    int32_t levels[kGroup];
    columns.levels(p, row, levels);
    const uint32_t* const photograph = photograph_words<kLayout>(p.frame, row, column);
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
      const Pack<uint32_t, 4> terms =
          load_words(photograph_words<kLayout>(p.frame, row + r, column));
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
        load_words(photograph_words<kLayout>(p.frame, p.frame.panel_height + row / 2, column));
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
