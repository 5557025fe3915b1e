// Kernels of render_frames, compiled once per instruction set. No torch, no std.
//
// A band of a frame is finished while it is in cache: the still background, then the panels, one
// row (rgb24) or two (YUV) at a time, then the text.
#pragma once

#include <stdint.h>
#include <string.h>

#include "common/blending.h"
#include "common/bt709.h"
#include "common/levels.h"
#include "cpu/render_frames_params.h"

namespace camfuse::CAMFUSE_ISA {

// --- The photograph, once per call -------------------------------------------------------------

// Writes one sample, given in 1/256 of a level.
static inline void write_sample(int32_t sample, int32_t weight, uint8_t* plain,
                                uint16_t* weighted) {
  *plain = plain_sample(sample);
  *weighted = weighted_sample(sample, weight);
}

// Luma of pixels [count, 3].
inline void convert_luma(const uint8_t* __restrict rgb, int64_t count, const FixedYuvRow& row,
                         int32_t weight, uint8_t* __restrict plain, uint16_t* __restrict weighted) {
  for (int64_t x = 0; x < count; ++x) {
    const int32_t sum = convert(row, rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2]);
    write_sample(luma_sample(sum), weight, plain + x, weighted + x);
  }
}

// Chroma of 2 x 2 pixels from the sums of two, [count].
inline void average_pairs(const int32_t* __restrict sums, int64_t count, int32_t weight,
                          uint8_t* __restrict plain, uint16_t* __restrict weighted) {
  for (int64_t x = 0; x < count / 2; ++x) {
    const int32_t sum = sums[2 * x] + sums[2 * x + 1];
    write_sample(chroma_sample(sum), weight, plain + x, weighted + x);
  }
}

// Chroma of two rows of pixels [width, 3]: U at `u` and V at `v` of both outputs, [width / 2] each.
inline void convert_chroma(const SourceParams& p, const uint8_t* __restrict upper,
                           const uint8_t* __restrict lower, int64_t u, int64_t v) {
  const FixedYuvRow cb = fixed_row(cb_row()), cr = fixed_row(cr_row());
  constexpr int64_t kBlock = 256;          // pixels, even
  int32_t u_sums[kBlock], v_sums[kBlock];  // of both rows
  for (int64_t start = 0; start < p.width; start += kBlock) {
    const int64_t count = p.width - start < kBlock ? p.width - start : kBlock;
    const uint8_t* __restrict a = upper + 3 * start;
    const uint8_t* __restrict b = lower + 3 * start;
    for (int64_t x = 0; x < count; ++x) {
      const int32_t red = a[3 * x] + b[3 * x], green = a[3 * x + 1] + b[3 * x + 1];
      const int32_t blue = a[3 * x + 2] + b[3 * x + 2];
      u_sums[x] = convert(cb, red, green, blue) + cb.offset;
      v_sums[x] = convert(cr, red, green, blue) + cr.offset;
    }
    average_pairs(u_sums, count, p.weight, p.plain + u + start / 2, p.weighted + u + start / 2);
    average_pairs(v_sums, count, p.weight, p.plain + v + start / 2, p.weighted + v + start / 2);
  }
}

// Rows [row_begin, row_end) of the photograph; both even for YUV.
inline void convert_source_rows(const SourceParams& p, int64_t row_begin, int64_t row_end) {
  const int64_t W = p.width;
  const int32_t weight = p.weight;
  if (p.layout == PixelLayout::kRgb24) {
    const int64_t begin = row_begin * W * 3, count = (row_end - row_begin) * W * 3;
    memcpy(p.plain + begin, p.source + begin, static_cast<size_t>(count));
    const uint8_t* __restrict source = p.source + begin;
    uint16_t* __restrict weighted = p.weighted + begin;
    for (int64_t i = 0; i < count; ++i) weighted[i] = weighted_level(source[i], weight);
    return;
  }
  const FixedYuvRow luma = fixed_row(luma_row());
  for (int64_t y = row_begin; y < row_end; y += 2) {
    const uint8_t* const upper = p.source + y * W * 3;
    const uint8_t* const lower = upper + W * 3;
    const int64_t u = p.height * W + y / 2 * (W / 2), v = u + p.height / 2 * (W / 2);
    convert_luma(upper, 2 * W, luma, weight, p.plain + y * W, p.weighted + y * W);
    convert_chroma(p, upper, lower, u, v);
  }
}

// --- Maps --------------------------------------------------------------------------------------

// One map, upsampled to the panel row by row. Rows of the map are widened first and kept: most rows
// of a panel lie between the same two.
template <typename T>
class UpsampledMap {
 public:
  UpsampledMap(const RenderParams& p, const RenderScratch& scratch, int64_t index)
      : map_(static_cast<const T*>(p.maps) + p.offsets[index]),
        h_(p.sizes[2 * index]),
        w_(p.sizes[2 * index + 1]),
        H_(p.panel_height),
        W_(p.panel_width),
        floor_(floor_of<T>(p.relu)),
        row_(static_cast<T*>(scratch.row)),
        weights_(static_cast<T*>(scratch.weights)),
        indices_(scratch.indices),
        wide_rows_(static_cast<T*>(scratch.wide_rows)) {
    Position<T> column = position(0, w_, W_);
    for (int64_t x = 0; x < W_; ++x, column.advance()) {
      indices_[x] = column.index();
      weights_[x] = column.weight();
    }
  }

  // The nearest of 256 levels on row y of the panel, [Wp]. A pixel is NaN, and level 0, if one of
  // the four values around it is not finite.
  void levels(int64_t y, const LevelRange<T>& range, int32_t* __restrict levels) {
    const Position<T> row = position(y, h_, H_);
    const int64_t index = row.index();
    const T weight = row.weight();
    const LevelRange<T> scale = range;
    const T* __restrict upper = wide_row(index);
    const T* __restrict lower = wide_row(index + 1 < h_ ? index + 1 : index);
    for (int64_t x = 0; x < W_; ++x)
      levels[x] = level_of(interpolated(upper[x], lower[x] - upper[x], weight), scale);
  }

 private:
  static Position<T> position(int64_t output, int64_t inputs, int64_t outputs) {
    return Position<T>(static_cast<uint32_t>(output), static_cast<uint32_t>(inputs),
                       static_cast<uint32_t>(outputs));
  }

  // Row y of the map, rectified and widened to [Wp].
  const T* wide_row(int64_t y) {
    const int64_t place = y % kWideRows;
    T* __restrict wide = wide_rows_ + place * W_;
    if (held_[place] == y) return wide;
    held_[place] = y;
    const T* __restrict in = map_ + y * w_;
    T* __restrict row = row_;
    const T floor = floor_;
    for (int64_t x = 0; x < w_; ++x) row[x] = at_least(in[x], floor);
    row[w_] = row[w_ - 1];
    const int32_t* __restrict indices = indices_;
    const T* __restrict weights = weights_;
    for (int64_t x = 0; x < W_; ++x) {
      const int32_t i = indices[x];
      wide[x] = interpolated(row[i], row[i + 1] - row[i], weights[x]);
    }
    return wide;
  }

  const T* map_;  // [h, w]
  int64_t h_, w_, H_, W_;
  T floor_;
  T* row_;                                      // [w + 1], the last value repeated
  T* weights_;                                  // [Wp]
  int32_t* indices_;                            // [Wp]
  T* wide_rows_;                                // [kWideRows, Wp]
  int64_t held_[kWideRows] = {-1, -1, -1, -1};  // rows of the map in wide_rows_
};

template <typename T>
static inline const LevelRange<T>& range_of(const RenderParams& p, const RenderPanel& panel,
                                            int64_t frame) {
  return panel.kind == Panel::kLayer
             ? static_cast<const LevelRange<T>*>(p.layer_levels)[frame * p.map_count + panel.map]
             : static_cast<const LevelRange<T>*>(p.global_levels)[panel.map];
}

// Calls draw(panel, y) for every `step` rows of every panel within canvas rows [row_begin,
// row_end), the levels of those rows being in scratch. One map after another, so that scratch holds
// one; row by row, so that all panels of a map share its widened rows.
template <typename T, typename Draw>
inline void draw_panels(const RenderParams& p, const RenderScratch& scratch, int64_t frame,
                        int64_t row_begin, int64_t row_end, int64_t step, const Draw& draw) {
  const RenderPanel* const end = p.panels + p.panel_count;
  for (const RenderPanel *first = p.panels + p.source_count, *last = first; first < end;
       first = last) {
    while (last < end && last->map == first->map) ++last;
    UpsampledMap<T> map(p, scratch, frame * p.map_count + first->map);
    for (int64_t y = row_begin; y < row_end; y += step) {
      for (const RenderPanel* panel = first; panel < last; ++panel) {
        const int64_t row = y - panel->top;
        if (row < 0 || row >= p.panel_height) continue;
        for (int64_t r = 0; r < step; ++r)
          map.levels(row + r, range_of<T>(p, *panel, frame), scratch.levels + r * p.panel_width);
        draw(*panel, y);
      }
    }
  }
}

static inline const uint8_t* text_row(const RenderParams& p, int64_t frame, int64_t y) {
  if (p.overlay == nullptr || p.overlay_row[y] < 0) return nullptr;
  return p.overlay + (frame * p.overlay_rows + p.overlay_row[y]) * p.width * 2;
}

// Samples [begin, end) of the still frame.
static inline void copy_still(const RenderParams& p, uint8_t* out, int64_t begin, int64_t end) {
  memcpy(out + begin, p.still + begin, static_cast<size_t>(end - begin));
}

// --- rgb24 -------------------------------------------------------------------------------------

// One row of one panel: levels [Wp], out [Wp, 3].
inline void blend_rgb(const RenderParams& p, const RenderScratch& scratch, int64_t y,
                      uint8_t* __restrict out) {
  const int64_t W = p.panel_width;
  const int32_t* __restrict levels = scratch.levels;
  uint16_t* __restrict colour = scratch.colour;
  // Each store of four lanes overwrites the spare lane of the one before.
  for (int64_t x = 0; x < W; ++x) memcpy(colour + 3 * x, p.rgb_table[levels[x]], 8);
  const uint16_t* __restrict source = p.photograph + y * W * 3;
  for (int64_t i = 0; i < 3 * W; ++i) out[i] = blended(source[i], colour[i]);
}

// Text over one row of the canvas.
inline void draw_text_rgb(const uint8_t* __restrict text, int64_t width, uint8_t* __restrict out) {
  for (int64_t x = 0; x < width; ++x) {
    const int32_t grey = text[2 * x], alpha = text[2 * x + 1];
    for (int64_t c = 0; c < 3; ++c) out[3 * x + c] = with_text_rgb(out[3 * x + c], grey, alpha);
  }
}

template <typename T>
inline void render_rgb(const RenderParams& p, const RenderScratch& scratch, int64_t frame,
                       int64_t row_begin, int64_t row_end) {
  uint8_t* const out = p.out + frame * p.frame_bytes;
  const int64_t stride = p.width * 3;
  copy_still(p, out, row_begin * stride, row_end * stride);
  draw_panels<T>(p, scratch, frame, row_begin, row_end, 1,
                 [&](const RenderPanel& panel, int64_t y) {
                   blend_rgb(p, scratch, y - panel.top, out + y * stride + panel.left * 3);
                 });
  for (int64_t y = row_begin; y < row_end; ++y)
    if (const uint8_t* text = text_row(p, frame, y)) draw_text_rgb(text, p.width, out + y * stride);
}

// --- i420 and nv12 -----------------------------------------------------------------------------

// Of a plane of chroma [H/2, W/2, channels]: U and V have one each in i420, share one in nv12.
template <PixelLayout kLayout>
constexpr int64_t kChannels = kLayout == PixelLayout::kNv12 ? 2 : 1;

// Two rows of one panel: levels [2, Wp], luma [2, Wp] on rows of the canvas, U and V [Wp/2] each,
// kChannels apart.
template <PixelLayout kLayout>
inline void blend_yuv(const RenderParams& p, const RenderScratch& scratch, int64_t y,
                      uint8_t* luma_out, uint8_t* __restrict u_out, uint8_t* __restrict v_out) {
  const int64_t W = p.panel_width;
  const int32_t shift = p.yuv_shift;
  const uint32_t* __restrict table = p.yuv_table;
  const int32_t* __restrict levels = scratch.levels;
  uint32_t* __restrict yuv = scratch.yuv;
  // Lookups stand alone, in 32 bits, so that they are vectorised; ivdep: the table is not written.
#pragma GCC ivdep
  for (int64_t x = 0; x < 2 * W; ++x) yuv[x] = table[levels[x]];
  for (int64_t r = 0; r < 2; ++r) {
    const uint32_t* __restrict in = yuv + r * W;
    const uint16_t* __restrict source = p.photograph + (y + r) * W;
    uint8_t* __restrict out = luma_out + r * p.width;
    for (int64_t x = 0; x < W; ++x) out[x] = blended(source[x], luma_term(in[x], shift));
  }
  const uint32_t* __restrict upper = yuv;
  const uint32_t* __restrict lower = yuv + W;
  const uint16_t* __restrict u_source = p.photograph + p.panel_height * W + y / 2 * (W / 2);
  const uint16_t* __restrict v_source = u_source + p.panel_height / 2 * (W / 2);
  for (int64_t x = 0; x < W / 2; ++x) {
    const uint32_t a = upper[2 * x], b = upper[2 * x + 1], c = lower[2 * x], d = lower[2 * x + 1];
    const uint32_t u = u_bits(a) + u_bits(b) + u_bits(c) + u_bits(d);
    const uint32_t v = v_bits(a) + v_bits(b) + v_bits(c) + v_bits(d);
    const uint8_t u_level = blended(u_source[x], u_term(u, shift));
    const uint8_t v_level = blended(v_source[x], v_term(v, shift));
    if constexpr (kLayout == PixelLayout::kNv12) {
      u_out[2 * x] = u_level;
      u_out[2 * x + 1] = v_level;  // v_out[2 * x], but stored together with U
    } else {
      u_out[x] = u_level;
      v_out[x] = v_level;
    }
  }
}

// Text over one row of Y.
inline void draw_text_luma(const uint8_t* __restrict text, int64_t width, uint8_t* __restrict out) {
  for (int64_t x = 0; x < width; ++x) {
    out[x] = with_text_luma(out[x], text[2 * x], text[2 * x + 1]);
  }
}

// Text over one row of chroma.
template <PixelLayout kLayout>
inline void draw_text_chroma(const uint8_t* __restrict upper, const uint8_t* __restrict lower,
                             int64_t width, uint8_t* __restrict out) {
  constexpr int64_t count = kChannels<kLayout>;
  for (int64_t x = 0; x < width / 2; ++x) {
    const int32_t alpha = upper[4 * x + 1] + upper[4 * x + 3] + lower[4 * x + 1] + lower[4 * x + 3];
    for (int64_t c = 0; c < count; ++c)
      out[count * x + c] = with_text_chroma(out[count * x + c], alpha);
  }
}

// Rows [row_begin, row_end), both even.
template <typename T, PixelLayout kLayout>
inline void render_yuv(const RenderParams& p, const RenderScratch& scratch, int64_t frame,
                       int64_t row_begin, int64_t row_end) {
  uint8_t* const out = p.out + frame * p.frame_bytes;
  const int64_t W = p.width, stride = W / 2 * kChannels<kLayout>;  // of a row of chroma
  const int64_t chroma = p.height * W, plane_size = p.height / 2 * stride;
  const int64_t u_to_v = kChannels<kLayout> == 2 ? 1 : plane_size;
  copy_still(p, out, row_begin * W, row_end * W);
  for (int64_t plane = chroma; plane < p.frame_bytes; plane += plane_size)
    copy_still(p, out, plane + row_begin / 2 * stride, plane + row_end / 2 * stride);
  draw_panels<T>(
      p, scratch, frame, row_begin, row_end, 2, [&](const RenderPanel& panel, int64_t y) {
        uint8_t* const u = out + chroma + y / 2 * stride + panel.left / 2 * kChannels<kLayout>;
        blend_yuv<kLayout>(p, scratch, y - panel.top, out + y * W + panel.left, u, u + u_to_v);
      });
  for (int64_t y = row_begin; y < row_end; y += 2) {
    const uint8_t* const text = text_row(p, frame, y);
    if (text == nullptr) continue;
    const uint8_t* const lower = text_row(p, frame, y + 1);
    draw_text_luma(text, W, out + y * W);
    draw_text_luma(lower, W, out + (y + 1) * W);
    for (int64_t plane = chroma; plane < p.frame_bytes; plane += plane_size)
      draw_text_chroma<kLayout>(text, lower, W, out + plane + y / 2 * stride);
  }
}

template <typename T>
inline void render_rows(const RenderParams& p, const RenderScratch& scratch, int64_t frame,
                        int64_t row_begin, int64_t row_end) {
  switch (p.layout) {
    case PixelLayout::kRgb24: return render_rgb<T>(p, scratch, frame, row_begin, row_end);
    case PixelLayout::kI420:
      return render_yuv<T, PixelLayout::kI420>(p, scratch, frame, row_begin, row_end);
    case PixelLayout::kNv12:
      return render_yuv<T, PixelLayout::kNv12>(p, scratch, frame, row_begin, row_end);
  }
}

}  // namespace camfuse::CAMFUSE_ISA
