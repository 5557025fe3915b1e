// render_frames on the CPU: what is prepared once per call, and the parallel loop.
// The arguments are documented in python/camfuse/ops.py.
#include "args/render_frames.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "common/blending.h"
#include "common/divide.h"
#include "common/levels.h"
#include "cpu/isa.h"
#include "cpu/render_frames_params.h"

CAMFUSE_DECLARE_RENDER_KERNELS(baseline)
#if defined(__x86_64__)
CAMFUSE_DECLARE_RENDER_KERNELS(v3)
CAMFUSE_DECLARE_RENDER_KERNELS(v4)
#endif

namespace camfuse {
namespace {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

constexpr int64_t kBandRows = 64;  // canvas rows of one task, even

// The overlay's row on each row of the canvas, or -1. [H]
std::vector<int32_t> rows_of_overlay(const RenderFramesArgs& p) {
  std::vector<int32_t> rows(static_cast<size_t>(p.height), -1);
  for (const RenderStrip& strip : std::span(p.strips, static_cast<size_t>(p.strip_count))) {
    const auto first = rows.begin() + strip.top;
    std::iota(first, first + strip.height, static_cast<int32_t>(strip.row));
  }
  return rows;
}

// Of `count` ranges T [count, 2].
template <typename T>
std::vector<LevelRange<T>> level_ranges(const void* ranges, int64_t count, bool relu) {
  std::vector<LevelRange<T>> result;
  const T* const range = static_cast<const T*>(ranges);
  for (int64_t n = 0; n < count; ++n)
    result.push_back(level_range(range[2 * n], range[2 * n + 1], relu));
  return result;
}

// The 256 colours times weight / 256. See Note: [Blending in fixed point].
struct ColourTables {
  uint16_t rgb[256][4];
  uint32_t yuv[256];
  int32_t yuv_shift;

  ColourTables(const uint8_t* colours, int32_t weight) : yuv_shift(yuv_shift_of(weight)) {
    for (int i = 0; i < 256; ++i) {
      const uint8_t* const colour = colours + 3 * i;
      for (int c = 0; c < 3; ++c) rgb[i][c] = static_cast<uint16_t>(colour[c] * weight);
      rgb[i][3] = 0;
      yuv[i] = yuv_colour(colour, weight, yuv_shift);
    }
  }
};

// The photograph, rgb24 or i420: as it is shown, and times weight / 256.
struct Photograph {
  std::unique_ptr<uint8_t[]> plain;
  std::unique_ptr<uint16_t[]> weighted;

  explicit Photograph(const RenderFramesArgs& p) {
    const int64_t Hp = p.panel_height, Wp = p.panel_width;
    const auto samples = static_cast<size_t>(bytes_of(p.layout, Hp, Wp));
    plain = std::make_unique_for_overwrite<uint8_t[]>(samples);
    weighted = std::make_unique_for_overwrite<uint16_t[]>(samples);
    const SourceParams params{p.source,      Hp, Wp, p.layout, 256 - p.colour_weight, plain.get(),
                              weighted.get()};
    torch::stable::parallel_for(0, (Hp + 1) / 2, 256, [&](int64_t begin, int64_t end) {
      CAMFUSE_DISPATCH_ISA(convert_source, params, 2 * begin, std::min(2 * end, Hp));
    });
  }
};

void copy_plane(const uint8_t* plane, int64_t rows, int64_t row_bytes, uint8_t* out,
                int64_t stride) {
  for (int64_t y = 0; y < rows; ++y)
    std::memcpy(out + y * stride, plane + y * row_bytes, static_cast<size_t>(row_bytes));
}

// Planes U and V [rows, columns] as the one plane of nv12.
void interleave_planes(const uint8_t* u, const uint8_t* v, int64_t rows, int64_t columns,
                       uint8_t* out, int64_t stride) {
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < columns; ++x) {
      out[y * stride + 2 * x] = u[y * columns + x];
      out[y * stride + 2 * x + 1] = v[y * columns + x];
    }
  }
}

// The frame without maps and text: background and source panels.
std::vector<uint8_t> still_frame(const RenderFramesArgs& p, const uint8_t* photograph) {
  const int64_t H = p.height, W = p.width, Hp = p.panel_height, Wp = p.panel_width;
  const bool rgb = !is_subsampled(p.layout);
  std::vector<uint8_t> still(static_cast<size_t>(bytes_of(p.layout, H, W)),
                             rgb ? static_cast<uint8_t>(p.background) : uint8_t{128});
  uint8_t* const out = still.data();
  if (!rgb) std::memset(out, background_luma(p.background), static_cast<size_t>(H * W));
  for (const RenderPanel& panel : std::span(p.panels, static_cast<size_t>(p.source_count))) {
    if (rgb) {
      copy_plane(photograph, Hp, 3 * Wp, out + (panel.top * W + panel.left) * 3, 3 * W);
      continue;
    }
    const uint8_t* const u = photograph + Hp * Wp;
    const uint8_t* const v = u + Hp * Wp / 4;
    copy_plane(photograph, Hp, Wp, out + panel.top * W + panel.left, W);
    if (p.layout == PixelLayout::kNv12) {
      uint8_t* const uv_out = out + H * W + panel.top / 2 * W + panel.left;
      interleave_planes(u, v, Hp / 2, Wp / 2, uv_out, W);
      continue;
    }
    uint8_t* const u_out = out + H * W + panel.top / 2 * (W / 2) + panel.left / 2;
    copy_plane(u, Hp / 2, Wp / 2, u_out, W / 2);
    copy_plane(v, Hp / 2, Wp / 2, u_out + H * W / 4, W / 2);
  }
  return still;
}

// The scratch memory of one thread.
template <typename T>
struct Scratch {
  std::vector<T> row, wide_rows, weights;
  std::vector<int32_t> indices, levels;
  std::vector<uint32_t> yuv;
  std::vector<uint16_t> colour;

  Scratch(size_t map_width, size_t panel_width)
      : row(map_width + 1),
        wide_rows(kWideRows * panel_width),
        weights(panel_width),
        indices(panel_width),
        levels(2 * panel_width),
        yuv(2 * panel_width),
        colour(3 * panel_width + 1) {}

  RenderScratch pointers() {
    return {row.data(),    wide_rows.data(), weights.data(), indices.data(),
            levels.data(), yuv.data(),       colour.data()};
  }
};

template <typename T, typename Kernel>
void render(RenderParams& params, const Kernel& kernel) {
  const auto layer_levels =
      level_ranges<T>(params.ranges, params.frames * params.map_count, params.relu);
  const auto global_levels = level_ranges<T>(params.global_ranges, params.map_count, params.relu);
  params.layer_levels = layer_levels.data();
  params.global_levels = global_levels.data();
  int64_t map_width = 1;
  for (int64_t n = 0; n < params.frames * params.map_count; ++n)
    map_width = std::max(map_width, params.sizes[2 * n + 1]);
  const int64_t bands = divide_up(params.height, kBandRows);
  torch::stable::parallel_for(0, params.frames * bands, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(static_cast<size_t>(map_width), static_cast<size_t>(params.panel_width));
    const RenderScratch pointers = scratch.pointers();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t top = task % bands * kBandRows;
      kernel(params, pointers, task / bands, top, std::min(top + kBandRows, params.height));
    }
  });
}

Tensor render_frames(const Tensor& maps, Ints offsets, Ints sizes, const Tensor& ranges,
                     const Tensor& global_ranges, const Tensor& source, const Tensor& colours,
                     Ints panels, Ints canvas, int64_t background, double blend, bool relu,
                     std::optional<Tensor> overlay, Ints strips, int64_t pixel_layout) {
  const RenderFramesCall call =
      render_frames_call(maps, offsets, sizes, ranges, global_ranges, source, colours, panels,
                         canvas, background, blend, relu, overlay, strips, pixel_layout);
  RenderParams params{};
  static_cast<RenderFramesArgs&>(params) = call.args;
  params.frame_bytes = bytes_of(params.layout, params.height, params.width);
  Tensor out = torch::stable::new_empty(source, {params.frames, params.frame_bytes});
  if (params.frames == 0) return out;
  params.out = static_cast<uint8_t*>(out.mutable_data_ptr());

  const ColourTables tables(params.colours, params.colour_weight);
  const Photograph photograph(params);
  const std::vector<uint8_t> still = still_frame(params, photograph.plain.get());
  const std::vector<int32_t> overlay_rows = rows_of_overlay(params);
  params.overlay_row = overlay_rows.data();
  params.still = still.data();
  params.photograph = photograph.weighted.get();
  params.rgb_table = tables.rgb;
  params.yuv_table = tables.yuv;
  params.yuv_shift = tables.yuv_shift;

  if (params.f64) {
    render<double>(params,
                   [](const auto&... args) { CAMFUSE_DISPATCH_ISA(render_rows_f64, args...); });
  } else {
    render<float>(params,
                  [](const auto&... args) { CAMFUSE_DISPATCH_ISA(render_rows_f32, args...); });
  }
  return out;
}

}  // namespace
}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) {
  m.impl("render_frames", TORCH_BOX(&camfuse::render_frames));
}
