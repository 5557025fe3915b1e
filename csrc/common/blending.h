// How a pixel of a frame is made of the photograph, a colour and text. Torch-free.
#pragma once

#include <stdint.h>

#include "common/bt709.h"
#include "common/host_device.h"

namespace camfuse {

// Note: [Blending in fixed point]
// A blended pixel is (256 - weight) / 256 * photograph + weight / 256 * colour, weight in 0..256.
// The photograph's term is tabulated in 1/256 of a level with 128 added, so that a pixel is one
// lookup, one addition and one shift, and rounds to nearest. In RGB this is exact. For YUV both
// terms are converted to YUV first (Note: [RGB to YUV]), and a colour is one 32-bit word, since
// lookups are what a pixel costs:
//
//     bits 31..20      19..10        9..0
//     Y in 2^(s-8)     U in 2^(s-6)  V in 2^(s-6)      s = yuv_shift, 4 for weight 256, 3 for 128
//
// so that Y << s, and the sum of four U or V << s, are in 1/256. With the default weight of 128 the
// terms together are within 1/50 of a level in Y and 1/15 in U and V.

// A sample of the photograph in 1/256 of a level: as it is shown, and as a term of the blend.
CAMFUSE_HD uint8_t plain_sample(int32_t sample) {
  return static_cast<uint8_t>((sample + 128) >> 8);
}
CAMFUSE_HD uint16_t weighted_sample(int32_t sample, int32_t weight) {
  return static_cast<uint16_t>(((sample * weight + 128) >> 8) + 128);
}
// The same for whole levels.
CAMFUSE_HD uint16_t weighted_level(int32_t level, int32_t weight) {
  return static_cast<uint16_t>(level * weight + 128);
}

// A grey level of 0..255 in Y; its U and V are 128.
CAMFUSE_HD uint8_t background_luma(int64_t grey) {
  return static_cast<uint8_t>(nearest(luma_row().offset + kLumaSpan * static_cast<double>(grey)));
}

CAMFUSE_HD uint8_t blended(uint32_t photograph, uint32_t colour) {
  return static_cast<uint8_t>((photograph + colour) >> 8);
}

CAMFUSE_HD int32_t yuv_shift_of(int32_t weight) {
  int32_t shift = 4;
  while (shift > 0 && weight << (5 - shift) <= 256) --shift;
  return shift;
}

// `in_units` units of a level.
CAMFUSE_HD uint32_t yuv_part(YuvRow row, const uint8_t* rgb, int32_t weight, int32_t in_units) {
  const double level = row.red * rgb[0] + row.green * rgb[1] + row.blue * rgb[2] + row.offset;
  return static_cast<uint32_t>(nearest(level * weight / 256 * in_units));
}

// The word of one colour [3], times weight / 256.
CAMFUSE_HD uint32_t yuv_colour(const uint8_t* rgb, int32_t weight, int32_t shift) {
  return yuv_part(luma_row(), rgb, weight, 1 << (8 - shift)) << 20 |
         yuv_part(cb_row(), rgb, weight, 1 << (6 - shift)) << 10 |
         yuv_part(cr_row(), rgb, weight, 1 << (6 - shift));
}

// Of a word; U and V of four words may be added before they are brought to 1/256.
CAMFUSE_HD uint32_t luma_term(uint32_t word, int32_t shift) { return word >> 20 << shift; }
CAMFUSE_HD uint32_t u_bits(uint32_t word) { return word & 0xffc00; }
CAMFUSE_HD uint32_t v_bits(uint32_t word) { return word & 0x3ff; }
CAMFUSE_HD uint32_t u_term(uint32_t bits, int32_t shift) { return bits >> 10 << shift; }
CAMFUSE_HD uint32_t v_term(uint32_t bits, int32_t shift) { return bits << shift; }

// Text over one sample: (1 - alpha) * level + alpha * grey, alpha in 0..255.
CAMFUSE_HD uint8_t with_text_rgb(int32_t level, int32_t grey, int32_t alpha) {
  return static_cast<uint8_t>((level * (255 - alpha) + grey * alpha + 127) / 255);
}

// Over Y; its grey 0..255 becomes 16..235.
CAMFUSE_HD uint8_t with_text_luma(uint8_t level, float grey, float alpha) {
  const float luma = 16.0f + grey * static_cast<float>(kLumaSpan);
  const float sum = static_cast<float>(level) * (255.0f - alpha) + luma * alpha;
  return static_cast<uint8_t>(static_cast<int32_t>(sum * (1.0f / 255.0f) + 0.5f));
}

// Over U or V: pulled to grey by the mean of four alphas, given their sum.
CAMFUSE_HD uint8_t with_text_chroma(int32_t level, int32_t alpha) {
  return static_cast<uint8_t>((level * (1020 - alpha) + 128 * alpha + 510) / 1020);
}

}  // namespace camfuse
