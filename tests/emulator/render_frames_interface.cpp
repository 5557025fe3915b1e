#include <vector>

#include "cuda/render_frames.h"
#include "interface.h"

namespace {

// The call that Python describes, and the lists it points to.
struct Call {
  camfuse::RenderFramesArgs args{};
  std::vector<camfuse::RenderPanel> panels;
  std::vector<camfuse::RenderStrip> strips;

  explicit Call(const emulated::Arguments& from) {
    args.f64 = from.flag("f64");
    args.maps = from.array<const void>("maps");
    args.ranges = from.array<const void>("ranges");
    args.frames = from.shape("ranges")[0], args.map_count = from.shape("ranges")[1];
    args.global_ranges = from.array<const void>("global_ranges");
    args.offsets = from.array<const int64_t>("offsets");
    args.sizes = from.array<const int64_t>("sizes");
    args.relu = from.flag("relu");
    args.source = from.array<const uint8_t>("source");
    args.panel_height = from.shape("source")[0], args.panel_width = from.shape("source")[1];
    args.colours = from.array<const uint8_t>("colours");
    args.colour_weight = static_cast<int32_t>(from.integer("colour_weight"));
    args.height = from.integer("height"), args.width = from.integer("width");
    args.background = from.integer("background");
    args.layout = static_cast<camfuse::PixelLayout>(from.integer("layout"));
    args.overlay = from.array<const uint8_t>("overlay");
    if (args.overlay != nullptr) args.overlay_rows = from.shape("overlay")[1];
    args.out = from.array<uint8_t>("out");

    const auto* const panel = from.array<const int64_t>("panels");  // [count, 4]
    for (int64_t i = 0; i < 4 * from.shape("panels")[0]; i += 4) {
      panels.push_back(
          {static_cast<camfuse::Panel>(panel[i]), panel[i + 1], panel[i + 2], panel[i + 3]});
      args.source_count += panel[i] == 0;
    }
    const auto* const strip = from.array<const int64_t>("strips");  // [count, 3]
    for (int64_t i = 0; i < 3 * from.shape("strips")[0]; i += 3) {
      strips.push_back({strip[i], strip[i + 1], strip[i + 2]});
    }
    args.panels = panels.data(), args.panel_count = static_cast<int64_t>(panels.size());
    args.strips = strips.data(), args.strip_count = static_cast<int64_t>(strips.size());
  }
};

}  // namespace

EMULATED_OP(render_frames_workspace, args) {
  *args.array<int64_t>("bytes") = camfuse::cuda::render_frames_workspace(Call(args).args);
}

EMULATED_OP(render_frames, args) {
  const Call call(args);
  camfuse::cuda::render_frames(call.args, args.array<void>("workspace"), nullptr);
}
