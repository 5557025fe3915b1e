// What render_frames is asked for, as plain data, for every backend. Torch-free.
#pragma once

#include <stdint.h>

#include "common/enums.h"
#include "common/host_device.h"

namespace camfuse {

struct RenderPanel {
  Panel kind;
  int64_t map;  // which of a frame's maps it shows, 0..V-1
  int64_t top, left;
};

// Canvas rows that the overlay covers.
struct RenderStrip {
  int64_t top, height;
  int64_t row;  // of the overlay, its first
};

// Sides of a canvas or a map are at most this, so that a position fits 32 bits.
constexpr int64_t kMaxSide = 32768;

// "T" is the dtype of maps. `offsets`, `sizes`, `panels` and `strips` are in the host's memory, the
// rest is in the device's.
struct RenderFramesArgs {
  bool f64;                   // whether T is double, else float
  const void* maps;           // T [S]
  int64_t frames, map_count;  // N, and V of each frame
  const int64_t* offsets;     // [N, V], in elements of maps
  const int64_t* sizes;       // [N, V, 2]: h, w
  const void* ranges;         // T [N, V, 2]
  const void* global_ranges;  // T [V, 2]
  bool relu;

  const uint8_t* source;              // [Hp, Wp, 3]
  int64_t panel_height, panel_width;  // of every panel
  const uint8_t* colours;             // [256, 3]
  int32_t colour_weight;              // 0..256; the photograph has the rest of 256

  int64_t height, width;      // of the canvas
  const RenderPanel* panels;  // [panel_count], in the order in which they are painted
  int64_t panel_count;
  int64_t source_count;  // panels that show the photograph: these come first
  int64_t background;    // grey level
  PixelLayout layout;

  const uint8_t* overlay;     // [N, overlay_rows, W, 2]: grey, alpha; may be null
  int64_t overlay_rows;       //
  const RenderStrip* strips;  // [strip_count], apart from one another
  int64_t strip_count;

  uint8_t* out;  // [N, frame_bytes]
};

// YUV with one pair of U and V for 2 x 2 pixels.
CAMFUSE_HD constexpr bool is_subsampled(PixelLayout layout) {
  return layout != PixelLayout::kRgb24;
}

constexpr int64_t bytes_of(PixelLayout layout, int64_t height, int64_t width) {
  return is_subsampled(layout) ? height * width / 2 * 3 : height * width * 3;
}

}  // namespace camfuse
