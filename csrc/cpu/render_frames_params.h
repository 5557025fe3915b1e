// What one call of render_frames hands to its kernels on the CPU: what is asked for, and what is
// prepared once per call. Torch-free.
#pragma once

#include <stdint.h>

#include "common/render_frames_args.h"

namespace camfuse {

struct RenderParams : RenderFramesArgs {
  const void* layer_levels;    // LevelRange<T> [N, V]
  const void* global_levels;   // LevelRange<T> [V]
  const int32_t* overlay_row;  // [H]: the overlay's row on this canvas row, or -1

  const uint8_t* still;            // [frame_bytes]: background and photographs
  int64_t frame_bytes;             //
  const uint16_t* photograph;      // rgb24 [Hp, Wp, 3]; else Y [Hp, Wp], U, V [Hp/2, Wp/2]
  const uint16_t (*rgb_table)[4];  // [256]: R, G, B, 0
  const uint32_t* yuv_table;       // [256]
  int32_t yuv_shift;
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

// How to convert the photograph. Both outputs are laid out as RenderParams::photograph.
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
