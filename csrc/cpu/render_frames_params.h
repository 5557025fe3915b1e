// What one call of render_frames hands to its kernels: plain pointers and numbers, all validated.
#pragma once

#include <stdint.h>

#include "common/enums.h"

namespace camfuse {

struct RenderPanel {
  Panel kind;
  int64_t map;  // which of a frame's maps it shows, 0..V-1
  int64_t top, left;
};

// A map value v becomes level (v - low) * scale, rounded, in 0..top: 255, or 0 for an empty range.
// (top is a variable because two constant bounds make GCC clamp with branches on masks.)
struct LevelRange {
  double low, scale, top;
};

// Note: [Blending in fixed point]
// A blended pixel is (256 - weight) / 256 * photograph + weight / 256 * colour, weight in 0..256.
// The photograph's term is tabulated in 1/256 of a level with 128 added, so that a pixel is one
// lookup, one addition and one shift, and rounds to nearest. In RGB this is exact. For YUV both
// terms are converted to YUV first (Note: [RGB to YUV]), and a colour is one 32-bit word, since
// lookups are what a pixel costs:
//
//     bits 31..20      19..10        9..0
//     Y in 2^(s-8)     U in 2^(s-6)  V in 2^(s-6)      s = yuv_shift, 4 for weight 256, 3 for 128
//
// so that Y << s, and the sum of four U or V << s, are in 1/256. With the default weight of 128 the
// terms together are within 1/50 of a level in Y and 1/15 in U and V.
struct RenderParams {
  // Inputs
  const void* maps;                 // [S], float or double
  int64_t map_count;                // V, of each frame
  const int64_t* offsets;           // [N, V], in elements of maps
  const int64_t* sizes;             // [N, V, 2]: h, w
  const LevelRange* layer_ranges;   // [N, V]
  const LevelRange* global_ranges;  // [V]
  bool relu;
  int64_t height, width;              // of the canvas
  int64_t panel_height, panel_width;  // of every panel
  const RenderPanel* panels;          // [panel_count], those that show a map, ordered by map
  int64_t panel_count;
  PixelLayout layout;
  const uint8_t* overlay;      // [N, overlay_rows, W, 2]: grey, alpha; may be null
  const int32_t* overlay_row;  // [H]: the overlay's row on this canvas row, or -1
  int64_t overlay_rows;

  // Prepared once per call
  const uint8_t* still;            // [frame_bytes]: background and photographs
  int64_t frame_bytes;             //
  const uint16_t* source;          // rgb24 [Hp, Wp, 3]; else Y [Hp, Wp], U, V [Hp/2, Wp/2]
  const uint16_t (*rgb_table)[4];  // [256]: R, G, B, 0
  const uint32_t* yuv_table;       // [256]
  int32_t yuv_shift;

  uint8_t* out;  // [N, frame_bytes]
};

// Rows of a map that are kept widened to the panel: enough for two rows of a panel, which each
// panel asks for in turn.
constexpr int64_t kWideRows = 4;

// Memory of one thread, T being the dtype of maps.
struct RenderScratch {
  void* row;         // T [max w + 1]
  void* wide_rows;   // T [kWideRows, Wp]
  void* weights;     // T [Wp]
  int32_t* indices;  // [Wp]
  int32_t* levels;   // [2, Wp]
  uint32_t* yuv;     // [2, Wp]
  uint16_t* colour;  // [Wp, 3] + 1
};

// How to convert the photograph. Both outputs are laid out as RenderParams::source.
struct SourceParams {
  const uint8_t* source;  // [Hp, Wp, 3]
  int64_t height, width;
  PixelLayout layout;
  int32_t weight;      // 0..256
  uint8_t* plain;      // the photograph, rounded
  uint16_t* weighted;  // weight * photograph, in 1/256, plus 128
};

}  // namespace camfuse

// The kernels of one instruction set.
#define CAMFUSE_DECLARE_RENDER_KERNELS(ISA)                                                     \
  namespace camfuse::ISA {                                                                      \
  void convert_source(const SourceParams& params, int64_t row_begin, int64_t row_end);          \
  void render_rows_f32(const RenderParams& params, const RenderScratch& scratch, int64_t frame, \
                       int64_t row_begin, int64_t row_end);                                     \
  void render_rows_f64(const RenderParams& params, const RenderScratch& scratch, int64_t frame, \
                       int64_t row_begin, int64_t row_end);                                     \
  }
