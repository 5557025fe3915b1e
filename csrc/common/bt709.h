// BT.709 Y'CbCr with limited range, as a linear function of 8-bit R'G'B'. Torch-free.
#pragma once

#include <stdint.h>

#include "common/host_device.h"

namespace camfuse {

// Note: [RGB to YUV]
// ITU-R BT.709-6, section 3: Y = 0.2126 R + 0.7152 G + 0.0722 B, Cb = (B - Y) / 1.8556,
// Cr = (R - Y) / 1.5748. Limited range maps 0..255 to 16..235 (Y) and to 16..240 (Cb, Cr; 128 is
// grey). All of it is affine, so colours may be blended in YUV as well as in RGB.
struct YuvRow {
  double red, green, blue, offset;
};

constexpr double kRed709 = 0.2126, kGreen709 = 0.7152, kBlue709 = 0.0722;
constexpr double kLumaSpan = 219.0 / 255.0, kChromaSpan = 224.0 / 255.0;

// (Functions, because device code can not read constants of class type.)
CAMFUSE_HD constexpr YuvRow luma_row() {
  return {kLumaSpan * kRed709, kLumaSpan * kGreen709, kLumaSpan * kBlue709, 16.0};
}
CAMFUSE_HD constexpr YuvRow cb_row() {
  return {-kChromaSpan * kRed709 / 1.8556, -kChromaSpan * kGreen709 / 1.8556, kChromaSpan * 0.5,
          128.0};
}
CAMFUSE_HD constexpr YuvRow cr_row() {
  return {kChromaSpan * 0.5, -kChromaSpan * kGreen709 / 1.5748, -kChromaSpan * kBlue709 / 1.5748,
          128.0};
}

CAMFUSE_HD constexpr int32_t nearest(double value) {
  return static_cast<int32_t>(value < 0 ? value - 0.5 : value + 0.5);
}

// One row of the conversion in 2^-21 of a level: the sum of four pixels fits 32 bits.
struct FixedYuvRow {
  int32_t red, green, blue, offset;
};

CAMFUSE_HD constexpr FixedYuvRow fixed_row(YuvRow row) {
  constexpr double kScale = 1 << 21;
  return {nearest(row.red * kScale), nearest(row.green * kScale), nearest(row.blue * kScale),
          nearest(row.offset * kScale)};
}

CAMFUSE_HD int32_t convert(FixedYuvRow row, int32_t red, int32_t green, int32_t blue) {
  return row.red * red + row.green * green + row.blue * blue + row.offset;
}

// A converted pixel, or the sum of four, in 1/256 of a level.
CAMFUSE_HD int32_t luma_sample(int32_t sum) { return (sum + (1 << 12)) >> 13; }
CAMFUSE_HD int32_t chroma_sample(int32_t sum) { return (sum + (1 << 14)) >> 15; }

}  // namespace camfuse
