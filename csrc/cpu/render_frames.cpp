// render_frames on the CPU: validation, what is prepared once per call, and the parallel loop.
// The arguments are documented in python/camfuse/ops.py.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "args/validate.h"
#include "common/bt709.h"
#include "cpu/isa.h"
#include "cpu/render_frames_params.h"

CAMFUSE_DECLARE_RENDER_KERNELS(baseline)
#if defined(__x86_64__)
CAMFUSE_DECLARE_RENDER_KERNELS(v3)
CAMFUSE_DECLARE_RENDER_KERNELS(v4)
#endif

namespace camfuse {
namespace {

constexpr int64_t kMaxSide = 32768;  // of a canvas or a map; keeps every index within int32
constexpr int64_t kBandRows = 64;    // canvas rows of one task, even

using Ints = std::vector<int64_t>;

const char* layout_name(PixelLayout layout) {
  switch (layout) {
    case PixelLayout::kRgb24: return "rgb24";
    case PixelLayout::kI420: return "i420";
    case PixelLayout::kNv12: return "nv12";
  }
  return "unknown";
}

// Where everything lies on a frame, as validated.
struct Layout {
  int64_t height, width, panel_height, panel_width;
  std::vector<RenderPanel> panels;
  PixelLayout pixels;

  // YUV with one pair of U and V for 2 x 2 pixels.
  bool subsampled() const { return pixels != PixelLayout::kRgb24; }
  int64_t bytes(int64_t h, int64_t w) const { return subsampled() ? h * w / 2 * 3 : 3 * h * w; }
};

bool is_even(int64_t value) { return value % 2 == 0; }

void check_maps(const Tensor& maps, const Ints& offsets, const Ints& sizes) {
  check_dtype("maps", maps, {ScalarType::Float, ScalarType::Double});
  check(maps.dim() == 1 && maps.is_contiguous(), "maps must be 1-D and contiguous, got shape ",
        shape_text(maps.sizes()));
  check(sizes.size() == 2 * offsets.size(), "sizes must hold (h, w) for each of offsets: expected ",
        2 * offsets.size(), " numbers, got ", sizes.size());
  const int64_t total = maps.numel();
  for (size_t n = 0; n < offsets.size(); ++n) {
    const int64_t h = sizes[2 * n], w = sizes[2 * n + 1];
    check(h >= 1 && h <= kMaxSide && w >= 1 && w <= kMaxSide, "sizes[", n,
          "]: expected sides from 1 to ", kMaxSide, ", got (", h, ", ", w, ")");
    check(offsets[n] >= 0 && offsets[n] <= total && h * w <= total - offsets[n], "offsets[", n,
          "]: a map of (", h, ", ", w, ") at ", offsets[n], " does not lie within the ", total,
          " elements of maps");
  }
}

// The number of maps of each frame, V, which divides that of offsets.
int64_t checked_map_count(const Tensor& global_ranges, const Tensor& ranges, const Tensor& maps,
                          const Ints& offsets) {
  check_like("global_ranges", global_ranges, maps, "maps");
  check(global_ranges.dim() == 2 && global_ranges.size(0) >= 1 && global_ranges.size(1) == 2,
        "global_ranges must have the shape [V, 2] with V of at least 1, got ",
        shape_text(global_ranges.sizes()));
  const int64_t count = global_ranges.size(0), total = static_cast<int64_t>(offsets.size());
  check(total % count == 0, "offsets must hold ", count,
        " for each frame, one for each of global_ranges, got ", total);
  check_like("ranges", ranges, maps, "maps");
  check_shape("ranges", ranges, {total / count, count, 2}, "[N, V, 2]");
  return count;
}

Layout checked_layout(const Tensor& source, const Ints& panels, int64_t map_count,
                      const Ints& canvas, int64_t pixel_layout) {
  check(pixel_layout >= static_cast<int64_t>(PixelLayout::kRgb24) &&
            pixel_layout <= static_cast<int64_t>(PixelLayout::kNv12),
        "pixel_layout: expected 0 (rgb24), 1 (i420) or 2 (nv12), got ", pixel_layout);
  check_dtype("source", source, {ScalarType::Byte});
  check(source.dim() == 3 && source.size(2) == 3, "source must have the shape [Hp, Wp, 3], got ",
        shape_text(source.sizes()));
  check(canvas.size() == 2, "canvas must be (H, W), got ", canvas.size(), " numbers");
  Layout layout{canvas[0],      canvas[1], source.size(0),
                source.size(1), {},        static_cast<PixelLayout>(pixel_layout)};
  const int64_t H = layout.height, W = layout.width;
  const int64_t Hp = layout.panel_height, Wp = layout.panel_width;
  check(H >= 1 && H <= kMaxSide && W >= 1 && W <= kMaxSide, "canvas: expected sides from 1 to ",
        kMaxSide, ", got (", H, ", ", W, ")");
  check(Hp >= 1 && Wp >= 1, "source must not be empty, got ", shape_text(source.sizes()));
  const bool subsampled = layout.subsampled();
  const char* const format = layout_name(layout.pixels);
  check(!subsampled || (is_even(H) && is_even(W)), "canvas must be even for ", format, ", got (", H,
        ", ", W, ")");
  check(!subsampled || (is_even(Hp) && is_even(Wp)), "source must be even for ", format, ", got ",
        shape_text(source.sizes()));

  check(panels.size() % 4 == 0, "panels must be quadruples (kind, map, top, left), got ",
        panels.size(), " numbers");
  for (size_t i = 0; i < panels.size(); i += 4) {
    const int64_t kind = panels[i], map = panels[i + 1], top = panels[i + 2], left = panels[i + 3];
    check(kind >= static_cast<int64_t>(Panel::kSource) &&
              kind <= static_cast<int64_t>(Panel::kGlobal),
          "panels[", i / 4, "]: expected kind 0 (source), 1 (layer) or 2 (global), got ", kind);
    const bool is_source = kind == static_cast<int64_t>(Panel::kSource);
    check(!is_source || map == 0, "panels[", i / 4, "]: expected map 0 for a source panel, got ",
          map);
    check(map >= 0 && map < map_count, "panels[", i / 4, "]: expected map 0 to ", map_count - 1,
          ", got ", map);
    check(top >= 0 && left >= 0 && top <= H - Hp && left <= W - Wp, "panels[", i / 4, "]: ", Hp,
          " x ", Wp, " at (", top, ", ", left, ") does not lie within the canvas (", H, ", ", W,
          ")");
    check(!subsampled || (is_even(top) && is_even(left)), "panels[", i / 4,
          "] must be at an even position for ", format, ", got (", top, ", ", left, ")");
    layout.panels.push_back({static_cast<Panel>(kind), map, top, left});
  }
  return layout;
}

// The overlay's row on each row of the canvas, or -1. [H]
std::vector<int32_t> checked_overlay_rows(const std::optional<Tensor>& overlay, const Ints& strips,
                                          const Layout& layout, int64_t frames) {
  check(is_even(static_cast<int64_t>(strips.size())), "strips must be pairs (top, height), got ",
        strips.size(), " numbers");
  check(overlay.has_value() || strips.empty(), "strips need an overlay");
  std::vector<int32_t> rows(static_cast<size_t>(layout.height), -1);
  int32_t count = 0;
  for (size_t i = 0; i < strips.size(); i += 2) {
    const int64_t top = strips[i], height = strips[i + 1];
    check(top >= 0 && top <= layout.height && height >= 0 && height <= layout.height - top,
          "strips[", i / 2, "]: ", height, " rows at ", top, " do not lie within the ",
          layout.height, " rows of the canvas");
    check(!layout.subsampled() || (is_even(top) && is_even(height)), "strips[", i / 2,
          "] must be even for ", layout_name(layout.pixels), ", got (", top, ", ", height, ")");
    for (int64_t y = top; y < top + height; ++y) {
      check(rows[static_cast<size_t>(y)] < 0, "strips[", i / 2, "] overlaps another at row ", y);
      rows[static_cast<size_t>(y)] = count++;
    }
  }
  if (overlay.has_value()) {
    check_dtype("overlay", *overlay, {ScalarType::Byte});
    check_shape("overlay", *overlay, {frames, count, layout.width, 2}, "[N, rows, W, 2]");
  }
  return rows;
}

// Levels of a signed range; T is the dtype of maps. Everything is level 0 if the range is empty,
// NaN or too narrow for a finite scale.
template <typename T>
LevelRange level_range(const T* range, bool relu) {
  double low = range[0], high = range[1];
  if (relu) {
    low = low < 0 ? 0 : low;
    high = high < 0 ? 0 : high;
  }
  const double scale = 255 / (high - low);
  const bool usable = high > low && scale <= static_cast<double>(std::numeric_limits<T>::max());
  return usable ? LevelRange{low, scale, 255} : LevelRange{0, 0, 0};
}

// Of `count` ranges [count, 2], f32 or f64.
std::vector<LevelRange> level_ranges(const Tensor& ranges, int64_t count, bool relu) {
  std::vector<LevelRange> result;
  const void* data = ranges.const_data_ptr();
  const bool is_float = ranges.scalar_type() == ScalarType::Float;
  for (int64_t n = 0; n < count; ++n)
    result.push_back(is_float ? level_range(static_cast<const float*>(data) + 2 * n, relu)
                              : level_range(static_cast<const double*>(data) + 2 * n, relu));
  return result;
}

// The 256 colours times weight / 256. See Note: [Blending in fixed point].
struct ColourTables {
  uint16_t rgb[256][4];
  uint32_t yuv[256];
  int32_t yuv_shift = 4;

  ColourTables(const uint8_t* colours, int32_t weight) {
    while (yuv_shift > 0 && weight << (5 - yuv_shift) <= 256) --yuv_shift;
    const double luma_unit = std::exp2(yuv_shift - 8), chroma_unit = std::exp2(yuv_shift - 6);
    for (int i = 0; i < 256; ++i) {
      const uint8_t* c = colours + 3 * i;
      for (int channel = 0; channel < 3; ++channel)
        rgb[i][channel] = static_cast<uint16_t>(c[channel] * weight);
      rgb[i][3] = 0;
      const auto in_units = [&](const YuvRow& row, double unit) {
        const double level = row.red * c[0] + row.green * c[1] + row.blue * c[2] + row.offset;
        return static_cast<uint32_t>(std::lround(level * weight / 256 / unit));
      };
      yuv[i] = in_units(kLuma709, luma_unit) << 20 | in_units(kCb709, chroma_unit) << 10 |
               in_units(kCr709, chroma_unit);
    }
  }
};

// The photograph, rgb24 or i420: as it is shown, and times weight / 256.
struct Photograph {
  std::unique_ptr<uint8_t[]> plain;
  std::unique_ptr<uint16_t[]> weighted;

  Photograph(const uint8_t* source, const Layout& layout, int32_t weight) {
    const int64_t Hp = layout.panel_height, Wp = layout.panel_width;
    const auto samples = static_cast<size_t>(layout.bytes(Hp, Wp));
    plain = std::make_unique_for_overwrite<uint8_t[]>(samples);
    weighted = std::make_unique_for_overwrite<uint16_t[]>(samples);
    const SourceParams params{source, Hp, Wp, layout.pixels, weight, plain.get(), weighted.get()};
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
std::vector<uint8_t> still_frame(const uint8_t* photograph, const Layout& layout,
                                 int64_t background) {
  const int64_t H = layout.height, W = layout.width;
  const int64_t Hp = layout.panel_height, Wp = layout.panel_width;
  const bool rgb = !layout.subsampled();
  std::vector<uint8_t> still(static_cast<size_t>(layout.bytes(H, W)),
                             rgb ? static_cast<uint8_t>(background) : uint8_t{128});
  uint8_t* const out = still.data();
  if (!rgb) {
    const double luma = kLuma709.offset + kLumaSpan * static_cast<double>(background);
    std::memset(out, static_cast<int>(std::lround(luma)), static_cast<size_t>(H * W));
  }
  for (const RenderPanel& panel : layout.panels) {
    if (panel.kind != Panel::kSource) continue;
    if (rgb) {
      copy_plane(photograph, Hp, 3 * Wp, out + (panel.top * W + panel.left) * 3, 3 * W);
      continue;
    }
    const uint8_t* const u = photograph + Hp * Wp;
    const uint8_t* const v = u + Hp * Wp / 4;
    copy_plane(photograph, Hp, Wp, out + panel.top * W + panel.left, W);
    if (layout.pixels == PixelLayout::kNv12) {
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
void render(const RenderParams& params, int64_t frames, const Kernel& kernel) {
  int64_t map_width = 1;
  for (int64_t n = 0; n < frames * params.map_count; ++n)
    map_width = std::max(map_width, params.sizes[2 * n + 1]);
  const int64_t bands = (params.height + kBandRows - 1) / kBandRows;
  torch::stable::parallel_for(0, frames * bands, 1, [&](int64_t begin, int64_t end) {
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
  check_maps(maps, offsets, sizes);
  const int64_t map_count = checked_map_count(global_ranges, ranges, maps, offsets);
  const int64_t frames = ranges.size(0);
  const Layout layout = checked_layout(source, panels, map_count, canvas, pixel_layout);
  check_dtype("colours", colours, {ScalarType::Byte});
  check_shape("colours", colours, {256, 3}, "[256, 3]");
  check(background >= 0 && background <= 255, "background: expected 0 to 255, got ", background);
  check(blend >= 0 && blend <= 1, "blend: expected 0 to 1, got ", blend);
  const std::vector<int32_t> overlay_rows = checked_overlay_rows(overlay, strips, layout, frames);

  const int64_t frame_bytes = layout.bytes(layout.height, layout.width);
  Tensor out = torch::stable::new_empty(source, {frames, frame_bytes});
  if (frames == 0) return out;

  const Tensor pixels = torch::stable::contiguous(source);
  const Tensor palette = torch::stable::contiguous(colours);
  const auto weight = static_cast<int32_t>(std::lround(blend * 256));
  const ColourTables tables(static_cast<const uint8_t*>(palette.const_data_ptr()), weight);
  const Photograph photograph(static_cast<const uint8_t*>(pixels.const_data_ptr()), layout,
                              256 - weight);
  const std::vector<uint8_t> still = still_frame(photograph.plain.get(), layout, background);
  const std::vector<LevelRange> layer_ranges =
      level_ranges(torch::stable::contiguous(ranges), frames * map_count, relu);
  const std::vector<LevelRange> shared_ranges =
      level_ranges(torch::stable::contiguous(global_ranges), map_count, relu);
  std::vector<RenderPanel> map_panels;
  for (const RenderPanel& panel : layout.panels)
    if (panel.kind != Panel::kSource) map_panels.push_back(panel);
  std::ranges::stable_sort(map_panels, {}, &RenderPanel::map);
  if (overlay.has_value()) overlay = torch::stable::contiguous(*overlay);

  RenderParams params{};
  params.maps = maps.const_data_ptr();
  params.map_count = map_count;
  params.offsets = offsets.data();
  params.sizes = sizes.data();
  params.layer_ranges = layer_ranges.data();
  params.global_ranges = shared_ranges.data();
  params.relu = relu;
  params.height = layout.height;
  params.width = layout.width;
  params.panel_height = layout.panel_height;
  params.panel_width = layout.panel_width;
  params.panels = map_panels.data();
  params.panel_count = static_cast<int64_t>(map_panels.size());
  params.layout = layout.pixels;
  if (overlay.has_value()) {
    params.overlay = static_cast<const uint8_t*>(overlay->const_data_ptr());
    params.overlay_rows = overlay->size(1);
  }
  params.overlay_row = overlay_rows.data();
  params.still = still.data();
  params.frame_bytes = frame_bytes;
  params.source = photograph.weighted.get();
  params.rgb_table = tables.rgb;
  params.yuv_table = tables.yuv;
  params.yuv_shift = tables.yuv_shift;
  params.out = static_cast<uint8_t*>(out.mutable_data_ptr());

  if (maps.scalar_type() == ScalarType::Float) {
    render<float>(params, frames,
                  [](const auto&... args) { CAMFUSE_DISPATCH_ISA(render_rows_f32, args...); });
  } else {
    render<double>(params, frames,
                   [](const auto&... args) { CAMFUSE_DISPATCH_ISA(render_rows_f64, args...); });
  }
  return out;
}

}  // namespace
}  // namespace camfuse

STABLE_TORCH_LIBRARY_IMPL(camfuse, CPU, m) {
  m.impl("render_frames", TORCH_BOX(&camfuse::render_frames));
}
