#pragma once

#include <stdint.h>

namespace camfuse {

// a / b, rounded up; both at least 0.
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace camfuse
