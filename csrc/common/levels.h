// How a map's values become entries of the colour table: upsampled, then scaled to 0..255.
// Torch-free. T is the dtype of maps, float or double.
#pragma once

#include <float.h>
#include <stdint.h>

#include "common/host_device.h"

namespace camfuse {

// A map value v becomes level (v - low) * scale, rounded, in 0..top: 255, or 0 for an empty range.
// (top is a variable because two constant bounds make GCC clamp with branches on masks.)
template <typename T>
struct LevelRange {
  T low, scale, top;
};

CAMFUSE_HD double greatest(float) { return FLT_MAX; }
CAMFUSE_HD double greatest(double) { return DBL_MAX; }

// Levels of a signed range. Everything is level 0 if the range is empty, NaN or too narrow for a
// finite scale.
template <typename T>
CAMFUSE_HD LevelRange<T> level_range(T least, T most, bool relu) {
  double low = least, high = most;
  if (relu) {
    low = low < 0 ? 0 : low;
    high = high < 0 ? 0 : high;
  }
  const double scale = 255 / (high - low);
  const bool usable = high > low && scale <= greatest(T());
  if (!usable) return {0, 0, 0};
  return {static_cast<T>(low), static_cast<T>(scale), 255};
}

// The nearest of 256 levels. NaN fails the first comparison and becomes 0.
template <typename T>
CAMFUSE_HD int32_t level_of(T value, LevelRange<T> range) {
  T level = (value - range.low) * range.scale + T(0.5);
  level = level > 0 ? level : 0;
  level = level < range.top ? level : range.top;
  return static_cast<int32_t>(level);
}

// The smallest value that a map keeps.
template <typename T>
CAMFUSE_HD T floor_of(bool relu) {
  return relu ? T(0) : -static_cast<T>(__builtin_inf());
}

template <typename T>
CAMFUSE_HD T at_least(T value, T floor) {
  return value < floor ? floor : value;  // NaN stays NaN
}

// From `a`, `weight` of the way to a + difference.
template <typename T>
CAMFUSE_HD T interpolated(T a, T difference, T weight) {
  return a + weight * difference;
}

// Where outputs lie between inputs along one side, one output after another: half-pixel centres,
// clamped at the border. Sides are at most 32768.
//
// The centre of output x is at ((2 x + 1) inputs - outputs) / (2 outputs). With 1 added nothing is
// negative, and quotient and remainder of whole numbers are exact.
template <typename T>
class Position {
 public:
  Position() = default;
  CAMFUSE_HD Position(uint32_t output, uint32_t inputs, uint32_t outputs)
      : period_(2 * outputs),
        quotient_step_(2 * inputs / period_),
        remainder_step_(2 * inputs % period_) {
    const uint32_t centre = (2 * output + 1) * inputs + outputs;  // at most 2^31
    quotient_ = centre / period_;
    remainder_ = centre % period_;
  }

  // The input before the output's centre, and the weight of the one after it.
  CAMFUSE_HD int32_t index() const {
    return quotient_ > 0 ? static_cast<int32_t>(quotient_) - 1 : 0;
  }
  CAMFUSE_HD T weight() const {
    return quotient_ > 0 ? static_cast<T>(remainder_) / static_cast<T>(period_) : T(0);
  }

  // To the next output.
  CAMFUSE_HD void advance() {
    quotient_ += quotient_step_;
    remainder_ += remainder_step_;
    if (remainder_ >= period_) {
      remainder_ -= period_;
      ++quotient_;
    }
  }

 private:
  uint32_t period_, quotient_step_, remainder_step_;
  uint32_t quotient_, remainder_;
};

}  // namespace camfuse
