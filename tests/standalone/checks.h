// Every CUDA op on layers of many kinds, against reference.h: close to it, equal in every bit when
// run again, whatever the workspace held, and for a sample alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "buffers.h"
#include "common/render_frames_args.h"
#include "cuda/fused_cam.h"
#include "cuda/layer_cam.h"
#include "cuda/render_frames.h"
#include "layers.h"
#include "reference.h"

namespace standalone {

using camfuse::LayerCamArgs;
namespace cuda = camfuse::cuda;

constexpr Rule kRules[] = {Rule::kGradCam,  Rule::kGradCamPlusPlus, Rule::kXGradCam,
                           Rule::kHiResCam, Rule::kElementwise,     Rule::kLayerCam,
                           Rule::kWeighted};
constexpr const char* kRuleNames[] = {"gradcam",     "gradcam++", "xgradcam", "hirescam",
                                      "elementwise", "layercam",  "weighted"};
constexpr std::size_t kRuleTotal = std::size(kRules);

inline const std::vector<Layer>& checked_layers() {
  static const std::vector<Layer> layers = [] {
    std::vector<Layer> all;
    for (Dtype dtype : {Dtype::kF64, Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
      for (Layout layout : {Layout::kPlanes, Layout::kRows, Layout::kGaps}) {
        all.push_back({dtype, layout, 3, 40, 7, 7});       // small, several slabs
        all.push_back({dtype, layout, 2, 5, 1, 1});        //
        all.push_back({dtype, layout, 2, 17, 31, 33});     // the largest small ones
        all.push_back({dtype, layout, 2, 24, 36, 40});     // large, whole packs
        all.push_back({dtype, layout, 1, 19, 33, 35});     // large, no pack fits
        all.push_back({dtype, layout, 2, 24, 36, 40, 1});  // misaligned
        all.push_back({dtype, layout, 1, 16, 7, 7, 1});
      }
    }
    all.push_back({Dtype::kF32, Layout::kPlanes, 1, 3, 300, 200});  // several tiles
    all.push_back({Dtype::kF32, Layout::kRows, 1, 72, 60, 60});     // several slabs of positions
    return all;
  }();
  return layers;
}

// Inputs on the device, and the ops' arguments for them.
class Input {
 public:
  Input(const Layer& layer, uint64_t seed)
      : layer_(layer),
        a_(layer, seed, true),
        g_(layer, seed + 1, false),
        weights_({layer.dtype, Layout::kPlanes, layer.B, layer.C, 1, 1}, seed + 2, false),
        a_device_(a_.memory.size(), misalignment()),
        g_device_(g_.memory.size(), misalignment()),
        weights_device_(weights_.memory.size()) {
    a_device_.write(a_.memory);
    g_device_.write(g_.memory);
    weights_device_.write(weights_.memory);
  }

  // For `count` samples from `first` on; `rules` must outlive the result.
  LayerCamArgs args(const std::vector<Rule>& rules, int64_t first, int64_t count) const {
    const int64_t item = camfuse::element_size(layer_.dtype);
    const auto at = [&](const DeviceBuffer& buffer, int64_t batch) -> const void* {
      return static_cast<const unsigned char*>(buffer.get()) + first * batch * item;
    };
    LayerCamArgs args{};
    args.dtype = layer_.dtype;
    args.B = count, args.C = layer_.C, args.h = layer_.h, args.w = layer_.w;
    const int64_t batch = layer_.view(nullptr).batch;
    args.a = layer_.view(at(a_device_, batch));
    args.g = layer_.view(at(g_device_, batch));
    args.rules = rules.data();
    args.R = static_cast<int64_t>(rules.size());
    for (Rule rule : rules) {
      args.uses[static_cast<int>(rule)] = true;
      if (rule == Rule::kWeighted)
        args.weights = {at(weights_device_, layer_.C), layer_.C, 1, 0, 0};
    }
    return args;
  }

  Map expected(Rule rule, int64_t b) const {
    const int64_t sample = layer_.C * layer_.plane();
    return layer_cam(rule, layer_, a_.at.data() + b * sample, g_.at.data() + b * sample,
                     weights_.at.data() + b * layer_.C);
  }

 private:
  std::size_t misalignment() const {
    return static_cast<std::size_t>(layer_.offset * camfuse::element_size(layer_.dtype));
  }

  Layer layer_;
  Values a_, g_, weights_;
  DeviceBuffer a_device_, g_device_, weights_device_;
};

struct Result {
  std::vector<double> maps, ranges;                 // [R, B, h * w], [R, B, 2]
  std::vector<unsigned char> map_bits, range_bits;  // as they lie in memory
};

inline std::vector<double> as_f64(const std::vector<unsigned char>& bits, Dtype dtype) {
  const auto item = static_cast<std::size_t>(camfuse::acc_size(dtype));
  std::vector<double> values(bits.size() / item);
  for (std::size_t i = 0; i < values.size(); ++i) {
    float single;
    if (item == 8) {
      std::memcpy(&values[i], bits.data() + 8 * i, 8);
    } else {
      std::memcpy(&single, bits.data() + 4 * i, 4);
      values[i] = static_cast<double>(single);
    }
  }
  return values;
}

// Runs layer_cam with a workspace that holds `garbage` everywhere.
inline Result run_layer_cam(LayerCamArgs args, int garbage) {
  const auto acc = static_cast<std::size_t>(camfuse::acc_size(args.dtype));
  const auto maps = static_cast<std::size_t>(args.R * args.B);
  DeviceBuffer map_buffer(maps * static_cast<std::size_t>(args.h * args.w) * acc);
  DeviceBuffer range_buffer(maps * 2 * acc);
  args.maps = map_buffer.get(), args.ranges = range_buffer.get();
  const cuda::LayerCamPlan plan = cuda::plan_layer_cam(args, {});
  DeviceBuffer workspace(static_cast<std::size_t>(plan.workspace_bytes));
  workspace.fill(garbage);
  cuda::launch_layer_cam(plan, workspace.get(), nullptr);
  Result result;
  result.map_bits = map_buffer.read<unsigned char>();
  result.range_bits = range_buffer.read<unsigned char>();
  result.maps = as_f64(result.map_bits, args.dtype);
  result.ranges = as_f64(result.range_bits, args.dtype);
  return result;
}

inline std::vector<double> run_fused_cam(LayerCamArgs args, int64_t H, int64_t W, bool relu) {
  const auto acc = static_cast<std::size_t>(camfuse::acc_size(args.dtype));
  DeviceBuffer picture(static_cast<std::size_t>(args.B * H * W) * acc);
  const cuda::Display display{args.h, args.w, H, W, relu, picture.get()};
  const cuda::LayerCamPlan plan = cuda::plan_layer_cam(args, display);
  DeviceBuffer workspace(static_cast<std::size_t>(plan.workspace_bytes));
  cuda::launch_fused_cam(plan, display, workspace.get(), nullptr);
  return as_f64(picture.read<unsigned char>(), args.dtype);
}

class Checks {
 public:
  int made = 0;
  std::vector<std::string> failures;

  void layer(const Layer& layer) {
    const std::vector<Rule> all(std::begin(kRules), std::end(kRules));
    const Input input(layer, 7);
    const Result result = run_layer_cam(input.args(all, 0, layer.B), 0xFF);
    const double tolerance = layer.dtype == Dtype::kF64 ? 1e-12 : 1e-5;
    for (std::size_t r = 0; r < kRuleTotal; ++r) {
      for (int64_t b = 0; b < layer.B; ++b) {
        const auto map = r * static_cast<std::size_t>(layer.B) + static_cast<std::size_t>(b);
        check_map(layer, r, input.expected(all[r], b), result, map, tolerance);
      }
    }
    const Result again = run_layer_cam(input.args(all, 0, layer.B), 0x5A);
    expect(again.map_bits == result.map_bits && again.range_bits == result.range_bits,
           layer.name() + ": a second run gives other bits");
    check_alone(layer, input, result);
    for (Rule rule : {Rule::kGradCam, Rule::kLayerCam}) check_fused(layer, input, rule);
  }

  void frames(bool f64);

  void expect(bool holds, const std::string& otherwise) {
    ++made;
    if (!holds) failures.push_back(otherwise);
  }

 private:
  void check_map(const Layer& layer, std::size_t rule, const Map& expected, const Result& result,
                 std::size_t map, double tolerance) {
    const auto plane = expected.at.size();
    double worst = 0, low = HUGE_VAL, high = -HUGE_VAL;
    bool ordered = true;  // false once there is a NaN
    for (std::size_t p = 0; p < plane; ++p) {
      const double value = result.maps[map * plane + p];
      ordered = ordered && value == value;
      worst = std::max(worst, std::fabs(value - expected.at[p]));
      low = std::min(low, value), high = std::max(high, value);
    }
    const std::string name = layer.name() + ", " + kRuleNames[rule];
    expect(ordered && worst <= tolerance * expected.scale,
           name + ": off by " + std::to_string(worst / expected.scale) + " of its scale");
    expect(result.ranges[2 * map] == low && result.ranges[2 * map + 1] == high,
           name + ": the range is not the map's");
  }

  // The last sample, and the first rules, by themselves.
  void check_alone(const Layer& layer, const Input& input, const Result& result) {
    const std::vector<Rule> two(std::begin(kRules), std::begin(kRules) + 2);
    const Result alone = run_layer_cam(input.args(two, layer.B - 1, 1), 0x33);
    const std::size_t bytes = alone.map_bits.size() / 2;
    const auto samples = static_cast<std::size_t>(layer.B);
    bool equal = true;
    for (std::size_t r = 0; r < 2; ++r) {
      equal = equal && std::equal(alone.map_bits.begin() + static_cast<int64_t>(r * bytes),
                                  alone.map_bits.begin() + static_cast<int64_t>((r + 1) * bytes),
                                  result.map_bits.begin() +
                                      static_cast<int64_t>((r * samples + samples - 1) * bytes));
    }
    expect(equal, layer.name() + ": a sample alone gives other bits");
  }

  void check_fused(const Layer& layer, const Input& input, Rule rule) {
    const std::vector<Rule> one{rule};
    const int64_t H = 2 * layer.h + 5, W = 3 * layer.w;
    const LayerCamArgs args = input.args(one, 0, layer.B);
    const Result maps = run_layer_cam(args, 0);
    const double tolerance = layer.dtype == Dtype::kF64 ? 1e-12 : 2e-5;
    for (bool relu : {true, false}) {
      const std::vector<double> picture = run_fused_cam(args, H, W, relu);
      double worst = 0;
      for (int64_t b = 0; b < layer.B; ++b) {
        const auto* const map = maps.maps.data() + b * layer.plane();
        const auto expected = shown({map, map + layer.plane()}, layer.h, layer.w, H, W, relu);
        for (std::size_t p = 0; p < expected.size(); ++p) {
          const double off =
              std::fabs(picture[static_cast<std::size_t>(b) * expected.size() + p] - expected[p]);
          worst = off == off ? std::max(worst, off) : HUGE_VAL;
        }
      }
      expect(worst <= tolerance, layer.name() + ", fused_cam: off by " + std::to_string(worst));
    }
  }
};

// Frames of a photograph beside a map, in rgb24.
inline void Checks::frames(bool f64) {
  constexpr int64_t kFrames = 3, kHeight = 30, kWidth = 44, h = 9, w = 7;
  const Layer shape{f64 ? Dtype::kF64 : Dtype::kF32, Layout::kPlanes, kFrames, 1, h, w};
  const Values maps(shape, 3, false);
  std::vector<double> ranges;
  for (int64_t n = 0; n < kFrames; ++n) {
    const auto begin = maps.at.begin() + n * h * w;
    const auto [low, high] = std::minmax_element(begin, begin + h * w);
    ranges.insert(ranges.end(), {*low, *high});
  }
  emulated::Random random(5);
  std::vector<uint8_t> source(3 * kHeight * kWidth), colours(3 * 256);
  for (uint8_t& value : source) value = static_cast<uint8_t>(random.below(256));
  for (std::size_t i = 0; i < 256; ++i) {
    colours[3 * i] = static_cast<uint8_t>(i), colours[3 * i + 1] = static_cast<uint8_t>(255 - i);
    colours[3 * i + 2] = static_cast<uint8_t>(i / 2);
  }
  std::vector<unsigned char> range_memory;
  for (double value : ranges) {
    unsigned char bytes[8];
    store(shape.dtype, value, bytes);
    range_memory.insert(range_memory.end(), bytes, bytes + camfuse::element_size(shape.dtype));
  }
  DeviceBuffer map_device(maps.memory.size()), range_device(range_memory.size());
  DeviceBuffer source_device(source.size()), colour_device(colours.size());
  map_device.write(maps.memory), range_device.write(range_memory);
  source_device.write(source), colour_device.write(colours);

  std::vector<int64_t> offsets, sizes;
  for (int64_t n = 0; n < kFrames; ++n)
    offsets.push_back(n * h * w), sizes.insert(sizes.end(), {h, w});
  const camfuse::RenderPanel panels[] = {{camfuse::Panel::kSource, 0, 0, 0},
                                         {camfuse::Panel::kLayer, 0, 0, kWidth}};
  camfuse::RenderFramesArgs args{};
  args.f64 = f64, args.maps = map_device.get(), args.frames = kFrames, args.map_count = 1;
  args.offsets = offsets.data(), args.sizes = sizes.data();
  args.ranges = args.global_ranges = range_device.get(), args.relu = true;
  args.source = static_cast<const uint8_t*>(source_device.get());
  args.panel_height = kHeight, args.panel_width = kWidth;
  args.colours = static_cast<const uint8_t*>(colour_device.get()), args.colour_weight = 128;
  args.height = kHeight, args.width = 2 * kWidth;
  args.panels = panels, args.panel_count = 2, args.source_count = 1;
  args.layout = camfuse::PixelLayout::kRgb24;
  const auto bytes = camfuse::bytes_of(args.layout, args.height, args.width);
  DeviceBuffer out(static_cast<std::size_t>(kFrames * bytes));
  DeviceBuffer workspace(static_cast<std::size_t>(cuda::render_frames_workspace(args)));
  args.out = static_cast<uint8_t*>(out.get());
  cuda::render_frames(args, workspace.get(), nullptr);
  const std::vector<uint8_t> frames = out.read<uint8_t>();
  workspace.fill(0x5A), out.fill(0);
  cuda::render_frames(args, workspace.get(), nullptr);
  expect(out.read<uint8_t>() == frames, "render_frames: a second run gives other bits");

  int worst = 0;
  for (int64_t n = 0; n < kFrames; ++n) {
    const auto* const map = maps.at.data() + n * h * w;
    const auto levels = shown({map, map + h * w}, h, w, kHeight, kWidth, true);
    for (int64_t p = 0; p < kHeight * 2 * kWidth; ++p) {
      const int64_t y = p / (2 * kWidth), x = p % (2 * kWidth);
      const auto pixel = static_cast<std::size_t>(y * kWidth + x % kWidth);
      for (std::size_t k = 0; k < 3; ++k) {
        double value = source[3 * pixel + k];
        if (x >= kWidth) {
          const auto entry = static_cast<std::size_t>(levels[pixel] * 255 + 0.5);
          value = (value + colours[3 * entry + k]) / 2;
        }
        const int got = frames[static_cast<std::size_t>(n * bytes + 3 * p) + k];
        worst = std::max(worst, std::abs(got - static_cast<int>(value + 0.5)));
      }
    }
  }
  // Levels round to a neighbour's where f32 and f64 disagree.
  expect(worst <= 1, "render_frames: off by " + std::to_string(worst));
}

inline Checks run_checks() {
  Checks checks;
  for (const Layer& layer : checked_layers()) checks.layer(layer);
  for (bool f64 : {false, true}) checks.frames(f64);
  return checks;
}

}  // namespace standalone
