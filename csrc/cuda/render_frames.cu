// The launches of render_frames: one that prepares, and one that renders all frames. (Thousands of
// maps, or hundreds of panels, take further launches of the first.)
//
// Note: [Bytes moved by render_frames]
// Of device memory, a frame of H x W is written once (3 H W bytes, half of that for YUV), its maps
// and its text are read. What all frames share is made once a call and read from cache: the
// photograph's terms (8 Hp Wp bytes, or 3 Hp Wp for YUV), the still frame (as large as a frame),
// and 8 bytes for each group of each chunk.
#include <algorithm>

#include "common/divide.h"
#include "cuda/launch.h"
#include "cuda/render_frames.h"
#include "cuda/render_frames_kernel.cuh"
#include "cuda/render_frames_prepare.cuh"

namespace camfuse::cuda {
namespace {

constexpr int64_t kThreadsPerMultiprocessor = 1024;  // asked for, so that all have work
constexpr int64_t kMaxChunkRows = 16;
constexpr int64_t kPrepareBlocksPerMultiprocessor = 16;

int32_t narrow(int64_t number) { return static_cast<int32_t>(number); }

// Rows that a thread paints, even: as many as leave enough threads for the device.
int64_t chunk_rows(const RenderFramesArgs& args, const Device& device) {
  const int64_t groups = divide_up(args.width, kGroup);
  const int64_t wanted = device.multiprocessors * kThreadsPerMultiprocessor;
  int64_t rows = kMaxChunkRows;
  while (rows > 2 && args.frames * groups * divide_up(args.height, rows) < wanted) rows /= 2;
  return rows;
}

// Cuts a workspace into arrays, each aligned to 16 bytes.
class Slices {
 public:
  explicit Slices(void* memory) : begin_(reinterpret_cast<uintptr_t>(memory)) {}

  template <class T>
  void take(T** array, int64_t count) {
    *array = reinterpret_cast<T*>(begin_ + static_cast<uintptr_t>(bytes_));
    bytes_ += divide_up(count * static_cast<int64_t>(sizeof(T)), 16) * 16;
  }
  int64_t bytes() const { return bytes_; }

 private:
  uintptr_t begin_;
  int64_t bytes_ = 0;
};

// Sets all of `f`; the bytes of workspace that it takes.
template <class T>
int64_t set_frame_params(FrameParams<T>& f, const RenderFramesArgs& args, const Device& device,
                         void* workspace) {
  const bool yuv = is_subsampled(args.layout);
  f.layout = args.layout;
  f.height = narrow(args.height), f.width = narrow(args.width);
  f.panel_height = narrow(args.panel_height);
  f.panel_width = narrow(args.panel_width);
  f.map_count = narrow(args.map_count);
  f.groups = narrow(divide_up(args.width, kGroup));
  f.chunk_rows = narrow(chunk_rows(args, device));
  f.chunks = narrow(divide_up(args.height, f.chunk_rows));
  f.pitch = narrow(divide_up(args.panel_width + 2 * kGroup - 1, kGroup) * kGroup);
  f.yuv_shift = yuv_shift_of(args.colour_weight);

  const int64_t cells = args.height / (yuv ? 2 : 1) * f.groups;
  const int64_t photograph = args.panel_height * f.pitch;  // pixels
  Slices slices(workspace);
  slices.take(&f.maps, args.frames * args.map_count);
  slices.take(&f.global_levels, args.map_count);
  slices.take(&f.panels, args.panel_count);
  slices.take(&f.text_row, args.height);
  slices.take(&f.covers, int64_t{f.chunks} * f.groups);
  slices.take(&f.colours, yuv ? 256 : 512);
  slices.take(&f.photograph, yuv ? photograph / 4 * 3 : photograph * 2);
  slices.take(&f.still, cells * kCellWords);
  return slices.bytes();
}

struct Part {
  int32_t first, count;
};

// Part number `part` of a list that travels in parts of kSize: its elements, made by convert(i).
template <class To, std::size_t kSize, class Convert>
Part take_part(To (&to)[kSize], int64_t total, int64_t part, Convert convert) {
  constexpr int64_t kMost = kSize;
  const int64_t first = std::min(part * kMost, total), count = std::min(kMost, total - first);
  for (int64_t i = 0; i < count; ++i) to[i] = convert(first + i);
  return {static_cast<int32_t>(first), static_cast<int32_t>(count)};
}

template <class T>
void prepare(const FrameParams<T>& frame, const RenderFramesArgs& args, const Device& device,
             cudaStream_t stream) {
  PrepareParams<T> p{};
  p.frame = frame;
  p.ranges = static_cast<const T*>(args.ranges);
  p.global_ranges = static_cast<const T*>(args.global_ranges);
  p.relu = args.relu;
  p.source = args.source;
  p.colours = args.colours;
  p.colour_weight = args.colour_weight;
  p.background = narrow(args.background);

  const int64_t maps = args.frames * args.map_count;
  const int64_t launches =
      std::max({int64_t{1}, divide_up(maps, kPartMaps), divide_up(args.panel_count, kPartPanels),
                divide_up(args.strip_count, kPartStrips)});
  const int64_t pixels = std::max<int64_t>(args.height * frame.groups * kGroup, maps);
  const int64_t blocks =
      std::min(divide_up(pixels, kFrameThreads * (is_subsampled(args.layout) ? 4 : 1)),
               device.multiprocessors * kPrepareBlocksPerMultiprocessor);
  for (int64_t n = 0; n < launches; ++n) {
    p.is_first = n == 0;
    const Part some_maps = take_part(p.maps, maps, n, [&](int64_t i) {
      return MapPlace{args.offsets[i], narrow(args.sizes[2 * i]), narrow(args.sizes[2 * i + 1])};
    });
    const Part panels = take_part(p.panels, args.panel_count, n, [&](int64_t i) {
      const RenderPanel& panel = args.panels[i];
      return FramePanel{static_cast<int32_t>(panel.kind), narrow(panel.map), narrow(panel.top),
                        narrow(panel.left)};
    });
    const Part strips = take_part(p.strips, args.strip_count, n, [&](int64_t i) {
      const RenderStrip& strip = args.strips[i];
      return FrameStrip{narrow(strip.top), narrow(strip.height), narrow(strip.row)};
    });
    p.first_map = some_maps.first, p.map_count = some_maps.count;
    p.first_panel = panels.first, p.panel_count = panels.count;
    p.strip_count = strips.count;
    launch("render_frames, preparing", prepare_frames<T>, blocks, kFrameThreads, 0, stream, p);
  }
}

template <class T>
void render(const RenderFramesArgs& args, void* workspace, cudaStream_t stream) {
  const Device device = current_device();
  RenderFramesParams<T> p{};
  set_frame_params(p.frame, args, device, workspace);
  prepare(p.frame, args, device, stream);

  const int64_t frame_blocks = divide_up(int64_t{p.frame.chunks} * p.frame.groups, kFrameThreads);
  p.frame_blocks = narrow(frame_blocks);
  p.maps = static_cast<const T*>(args.maps);
  p.floor = floor_of<T>(args.relu);
  p.overlay = args.overlay;
  p.overlay_rows = narrow(args.overlay_rows);
  p.frame_bytes = bytes_of(args.layout, args.height, args.width);
  p.out = args.out;
  void (*kernel)(RenderFramesParams<T>) = nullptr;
  switch (args.layout) {
    case PixelLayout::kRgb24: kernel = render_all_frames<T, PixelLayout::kRgb24>; break;
    case PixelLayout::kI420: kernel = render_all_frames<T, PixelLayout::kI420>; break;
    case PixelLayout::kNv12: kernel = render_all_frames<T, PixelLayout::kNv12>; break;
  }
  const int64_t table_bytes = is_subsampled(args.layout) ? 1024 : 2048;
  launch("render_frames", kernel, args.frames * frame_blocks, kFrameThreads, table_bytes, stream,
         p);
}

}  // namespace

int64_t render_frames_workspace(const RenderFramesArgs& args) {
  const Device device = current_device();
  FrameParams<float> f32{};
  FrameParams<double> f64{};
  return args.f64 ? set_frame_params(f64, args, device, nullptr)
                  : set_frame_params(f32, args, device, nullptr);
}

void render_frames(const RenderFramesArgs& args, void* workspace, void* stream) {
  if (args.frames == 0) return;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (args.f64) {
    render<double>(args, workspace, cuda_stream);
  } else {
    render<float>(args, workspace, cuda_stream);
  }
}

}  // namespace camfuse::cuda
