// Layers to try kernels on: random numbers of each type, in each layout.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../emulator/random.h"
#include "common/layer_cam_args.h"

namespace standalone {

using camfuse::Dtype;
using camfuse::LayerView;

enum class Layout { kPlanes, kRows, kGaps };

struct Layer {
  Dtype dtype;
  Layout layout;
  int64_t B, C, h, w;
  int64_t offset = 0;  // elements past an aligned address

  int64_t plane() const { return h * w; }
  int64_t elements() const { return B * C * plane(); }

  std::string name() const {
    constexpr const char* kDtypes[] = {"f64", "f32", "bf16", "f16"};
    constexpr const char* kLayouts[] = {"nchw", "nhwc", "gaps"};
    std::string text =
        std::string(kDtypes[static_cast<int>(dtype)]) + " " + kLayouts[static_cast<int>(layout)];
    for (int64_t side : {B, C, h, w}) {
      text += (side == B && text.back() != 'x' ? " " : "") + std::to_string(side) + "x";
    }
    text.pop_back();
    return text + (offset != 0 ? " misaligned" : "");
  }

  // Strides in elements; kGaps has room between rows, planes and samples.
  LayerView view(const void* data) const {
    switch (layout) {
      case Layout::kPlanes: return {data, C * plane(), plane(), w, 1};
      case Layout::kRows: return {data, plane() * C, 1, w * C, C};
      default: return {data, C * h * (2 * w + 3) + 1, h * (2 * w + 3), 2 * w + 3, 2};
    }
  }
  int64_t place(int64_t b, int64_t c, int64_t y, int64_t x) const {
    const LayerView at = view(nullptr);
    return b * at.batch + c * at.channel + y * at.row + x * at.column;
  }
  int64_t span() const { return place(B - 1, C - 1, h - 1, w - 1) + 1; }
};

// In [-1, 1).
inline double uniform(emulated::Random& random) {
  return static_cast<double>(random.next() >> 11) * 0x1p-52 - 1;
}

// A number of few bits, which every type holds; most are not 0.
inline double coarse(emulated::Random& random) {
  return (static_cast<double>(random.below(255)) - 127) / 64;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// What an element of `dtype` looks like in memory; 16-bit types must hold `value` exactly.
inline void store(Dtype dtype, double value, unsigned char* to) {
  const auto single = static_cast<float>(value);
  const uint32_t bits = bits_of(single);
  switch (dtype) {
    case Dtype::kF64: std::memcpy(to, &value, sizeof(value)); return;
    case Dtype::kF32: std::memcpy(to, &single, sizeof(single)); return;
    case Dtype::kBF16: {
      const auto half = static_cast<uint16_t>(bits >> 16);
      std::memcpy(to, &half, sizeof(half));
      return;
    }
    case Dtype::kF16: {
      // A normal number: the exponent's bias is 127 in a float, 15 in a half.
      const uint32_t rest = bits & 0x7fffffffu;
      const uint32_t magnitude = rest == 0 ? 0 : (rest - ((127u - 15u) << 23)) >> 13;
      const auto half = static_cast<uint16_t>((bits >> 16 & 0x8000u) | magnitude);
      std::memcpy(to, &half, sizeof(half));
    }
  }
}

// Values [B, C, h, w], and how they lie in memory.
struct Values {
  std::vector<double> at;
  std::vector<unsigned char> memory;

  // `positive`: about half of them are 0, none is below, as after a ReLU.
  Values(const Layer& layer, uint64_t seed, bool positive)
      : at(static_cast<std::size_t>(layer.elements())) {
    const auto item = camfuse::element_size(layer.dtype);
    memory.resize(static_cast<std::size_t>(layer.span() * item), 0xFF);
    emulated::Random random(seed);
    std::size_t i = 0;
    for (int64_t b = 0; b < layer.B; ++b) {
      for (int64_t c = 0; c < layer.C; ++c) {
        for (int64_t y = 0; y < layer.h; ++y) {
          for (int64_t x = 0; x < layer.w; ++x, ++i) {
            double value = item == 2 ? coarse(random) : uniform(random);
            if (item == 4) value = static_cast<double>(static_cast<float>(value));
            at[i] = positive && value < 0 ? 0 : value;
            store(layer.dtype, at[i], memory.data() + layer.place(b, c, y, x) * item);
          }
        }
      }
    }
  }
};

}  // namespace standalone
