// A small random generator: the same numbers for the same seed, everywhere.
#pragma once

#include <cstdint>

namespace emulated {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // SplitMix64.
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0, count).
  uint64_t below(uint64_t count) { return ((next() >> 32) * count) >> 32; }

 private:
  uint64_t state_;
};

}  // namespace emulated
