// BT.709 Y'CbCr with limited range, as a linear function of 8-bit R'G'B'. Torch-free.
#pragma once

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

constexpr YuvRow kLuma709{kLumaSpan * kRed709, kLumaSpan* kGreen709, kLumaSpan* kBlue709, 16.0};
constexpr YuvRow kCb709{-kChromaSpan * kRed709 / 1.8556, -kChromaSpan* kGreen709 / 1.8556,
                        kChromaSpan * 0.5, 128.0};
constexpr YuvRow kCr709{kChromaSpan * 0.5, -kChromaSpan* kGreen709 / 1.5748,
                        -kChromaSpan* kBlue709 / 1.5748, 128.0};

}  // namespace camfuse
