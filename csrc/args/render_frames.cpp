#include "args/render_frames.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>

#include "args/validate.h"

namespace camfuse {
namespace {

using Ints = std::vector<int64_t>;

const char* layout_name(PixelLayout layout) {
  switch (layout) {
    case PixelLayout::kRgb24: return "rgb24";
    case PixelLayout::kI420: return "i420";
    case PixelLayout::kNv12: return "nv12";
  }
  return "unknown";
}

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

// Sets the sizes of canvas and panels.
void set_sides(RenderFramesArgs& p, const Tensor& source, const Ints& canvas,
               int64_t pixel_layout) {
  check(pixel_layout >= static_cast<int64_t>(PixelLayout::kRgb24) &&
            pixel_layout <= static_cast<int64_t>(PixelLayout::kNv12),
        "pixel_layout: expected 0 (rgb24), 1 (i420) or 2 (nv12), got ", pixel_layout);
  p.layout = static_cast<PixelLayout>(pixel_layout);
  check_dtype("source", source, {ScalarType::Byte});
  check(source.dim() == 3 && source.size(2) == 3, "source must have the shape [Hp, Wp, 3], got ",
        shape_text(source.sizes()));
  check(canvas.size() == 2, "canvas must be (H, W), got ", canvas.size(), " numbers");
  const int64_t H = p.height = canvas[0], W = p.width = canvas[1];
  const int64_t Hp = p.panel_height = source.size(0), Wp = p.panel_width = source.size(1);
  check(H >= 1 && H <= kMaxSide && W >= 1 && W <= kMaxSide, "canvas: expected sides from 1 to ",
        kMaxSide, ", got (", H, ", ", W, ")");
  check(Hp >= 1 && Wp >= 1, "source must not be empty, got ", shape_text(source.sizes()));
  if (!is_subsampled(p.layout)) return;
  const char* const format = layout_name(p.layout);
  check(is_even(H) && is_even(W), "canvas must be even for ", format, ", got (", H, ", ", W, ")");
  check(is_even(Hp) && is_even(Wp), "source must be even for ", format, ", got ",
        shape_text(source.sizes()));
}

// In the order in which they are painted: photographs, then maps by their number.
std::vector<RenderPanel> checked_panels(const RenderFramesArgs& p, const Ints& panels) {
  const int64_t H = p.height, W = p.width, Hp = p.panel_height, Wp = p.panel_width;
  check(panels.size() % 4 == 0, "panels must be quadruples (kind, map, top, left), got ",
        panels.size(), " numbers");
  std::vector<RenderPanel> result;
  for (size_t i = 0; i < panels.size(); i += 4) {
    const int64_t kind = panels[i], map = panels[i + 1], top = panels[i + 2], left = panels[i + 3];
    check(kind >= static_cast<int64_t>(Panel::kSource) &&
              kind <= static_cast<int64_t>(Panel::kGlobal),
          "panels[", i / 4, "]: expected kind 0 (source), 1 (layer) or 2 (global), got ", kind);
    const bool is_source = kind == static_cast<int64_t>(Panel::kSource);
    check(!is_source || map == 0, "panels[", i / 4, "]: expected map 0 for a source panel, got ",
          map);
    check(map >= 0 && map < p.map_count, "panels[", i / 4, "]: expected map 0 to ", p.map_count - 1,
          ", got ", map);
    check(top >= 0 && left >= 0 && top <= H - Hp && left <= W - Wp, "panels[", i / 4, "]: ", Hp,
          " x ", Wp, " at (", top, ", ", left, ") does not lie within the canvas (", H, ", ", W,
          ")");
    check(!is_subsampled(p.layout) || (is_even(top) && is_even(left)), "panels[", i / 4,
          "] must be at an even position for ", layout_name(p.layout), ", got (", top, ", ", left,
          ")");
    result.push_back({static_cast<Panel>(kind), map, top, left});
  }
  std::ranges::stable_sort(result, {}, [](const RenderPanel& panel) {
    return panel.kind == Panel::kSource ? -1 : panel.map;
  });
  return result;
}

// Sets overlay_rows, which the overlay must have.
std::vector<RenderStrip> checked_strips(RenderFramesArgs& p, const std::optional<Tensor>& overlay,
                                        const Ints& strips) {
  check(is_even(static_cast<int64_t>(strips.size())), "strips must be pairs (top, height), got ",
        strips.size(), " numbers");
  check(overlay.has_value() || strips.empty(), "strips need an overlay");
  std::vector<RenderStrip> result;
  std::vector<bool> taken(static_cast<size_t>(p.height));
  p.overlay_rows = 0;
  for (size_t i = 0; i < strips.size(); i += 2) {
    const int64_t top = strips[i], height = strips[i + 1];
    check(top >= 0 && top <= p.height && height >= 0 && height <= p.height - top, "strips[", i / 2,
          "]: ", height, " rows at ", top, " do not lie within the ", p.height,
          " rows of the canvas");
    check(!is_subsampled(p.layout) || (is_even(top) && is_even(height)), "strips[", i / 2,
          "] must be even for ", layout_name(p.layout), ", got (", top, ", ", height, ")");
    for (int64_t y = top; y < top + height; ++y) {
      check(!taken[static_cast<size_t>(y)], "strips[", i / 2, "] overlaps another at row ", y);
      taken[static_cast<size_t>(y)] = true;
    }
    result.push_back({top, height, p.overlay_rows});
    p.overlay_rows += height;
  }
  return result;
}

void check_bytes(const char* name, const Tensor& tensor, const std::vector<int64_t>& expected,
                 const char* expected_as, const Tensor& maps) {
  check_dtype(name, tensor, {ScalarType::Byte});
  check_shape(name, tensor, expected, expected_as);
  check_device(name, tensor, maps, "maps");
}

}  // namespace

RenderFramesCall render_frames_call(const Tensor& maps, const Ints& offsets, const Ints& sizes,
                                    const Tensor& ranges, const Tensor& global_ranges,
                                    const Tensor& source, const Tensor& colours, const Ints& panels,
                                    const Ints& canvas, int64_t background, double blend, bool relu,
                                    const std::optional<Tensor>& overlay, const Ints& strips,
                                    int64_t pixel_layout) {
  RenderFramesCall call{};
  RenderFramesArgs& p = call.args;
  check_maps(maps, offsets, sizes);
  p.f64 = maps.scalar_type() == ScalarType::Double;
  p.maps = maps.const_data_ptr();
  p.offsets = offsets.data();
  p.sizes = sizes.data();
  p.map_count = checked_map_count(global_ranges, ranges, maps, offsets);
  p.frames = ranges.size(0);
  p.relu = relu;

  set_sides(p, source, canvas, pixel_layout);
  check_device("source", source, maps, "maps");
  call.panels = checked_panels(p, panels);
  p.panels = call.panels.data();
  p.panel_count = static_cast<int64_t>(call.panels.size());
  p.source_count = std::ranges::count(call.panels, Panel::kSource, &RenderPanel::kind);
  check_bytes("colours", colours, {256, 3}, "[256, 3]", maps);
  check(background >= 0 && background <= 255, "background: expected 0 to 255, got ", background);
  p.background = background;
  check(blend >= 0 && blend <= 1, "blend: expected 0 to 1, got ", blend);
  p.colour_weight = static_cast<int32_t>(std::lround(blend * 256));

  call.strips = checked_strips(p, overlay, strips);
  p.strips = call.strips.data();
  p.strip_count = static_cast<int64_t>(call.strips.size());
  if (overlay) {
    check_bytes("overlay", *overlay, {p.frames, p.overlay_rows, p.width, 2}, "[N, rows, W, 2]",
                maps);
  }

  const auto contiguous = [&](const Tensor& tensor) {
    return call.tensors.emplace_back(torch::stable::contiguous(tensor)).const_data_ptr();
  };
  p.ranges = contiguous(ranges);
  p.global_ranges = contiguous(global_ranges);
  p.source = static_cast<const uint8_t*>(contiguous(source));
  p.colours = static_cast<const uint8_t*>(contiguous(colours));
  if (overlay) p.overlay = static_cast<const uint8_t*>(contiguous(*overlay));
  return call;
}

}  // namespace camfuse
