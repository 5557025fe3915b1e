// What stands for device memory: buffers of exactly the bytes asked, which AddressSanitizer lets
// only kernels touch; and host memory that it lets only the host touch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulated {

enum class Side { kHost, kDevice };

// `offset` bytes before the result belong to the buffer too, but are no one's to touch (but for
// those that share 8 bytes with the result, which AddressSanitizer cannot forbid).
// Null if there is no memory. `name` is for AddressSanitizer's reports.
void* allocate(const char* name, Side side, std::size_t bytes, std::size_t offset);
void release(void* pointer);

// While one lives, code on these sides may run: the other side's buffers are forbidden.
// At first, and when all are gone, the host runs.
class Running {
 public:
  Running(bool host, bool device);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
};

// Fills with bytes that no one wrote: 0xFF (NaN, -1) for even seeds, random ones for odd seeds.
void poison(void* pointer, std::size_t bytes, uint64_t seed);

}  // namespace emulated
