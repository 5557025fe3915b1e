// Argument checks. A failed one throws std::invalid_argument, which Python sees as ValueError.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace camfuse {

// Throws the concatenation of `parts` unless `condition` holds.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// "(2, 64, 56, 56)", as Python writes a shape.
template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::string text = "(";
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  }
  return text + (sizes.size() == 1 ? ",)" : ")");
}

// The product of `factors`, or an error that says `what` is too large for memory.
template <class... Factors>
int64_t checked_product(const char* what, Factors... factors) {
  int64_t product = 1;
  const bool overflow = (__builtin_mul_overflow(product, int64_t{factors}, &product) || ...);
  // 2^56 elements leave room for the bytes of an element.
  check(!overflow && product < (int64_t{1} << 56), what, " is too large");
  return product;
}

}  // namespace camfuse
