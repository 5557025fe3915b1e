// What the kernels of render_frames share: how the work is cut, and what one makes for the other.
#pragma once

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

}  // namespace camfuse::cuda
