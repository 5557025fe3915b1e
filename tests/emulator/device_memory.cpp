#include "device_memory.h"

#include <sanitizer/asan_interface.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "random.h"

namespace emulated {
namespace {

struct Buffer {
  Side side;
  std::size_t bytes, offset;
};

std::map<char*, Buffer> buffers;  // by the address that allocate() returned

void forbid_all_but(bool host, bool device) {
  for (const auto& [pointer, buffer] : buffers) {
    if (buffer.side == Side::kHost ? host : device) {
      ASAN_UNPOISON_MEMORY_REGION(pointer, buffer.bytes);
    } else {
      ASAN_POISON_MEMORY_REGION(pointer, buffer.bytes);
    }
  }
}

}  // namespace

void* allocate(Side side, std::size_t bytes, std::size_t offset) {
  auto* start = static_cast<char*>(std::malloc(offset + bytes));
  if (start == nullptr) throw std::bad_alloc();
  ASAN_POISON_MEMORY_REGION(start, side == Side::kHost ? offset : offset + bytes);
  buffers[start + offset] = {side, bytes, offset};
  return start + offset;
}

void release(void* pointer) {
  const auto found = buffers.find(static_cast<char*>(pointer));
  std::free(found->first - found->second.offset);
  buffers.erase(found);
}

Running::Running(bool host, bool device) { forbid_all_but(host, device); }
Running::~Running() { forbid_all_but(true, false); }

void poison(void* pointer, std::size_t bytes, uint64_t seed) {
  if (seed % 2 == 0) {
    std::memset(pointer, 0xff, bytes);
    return;
  }
  Random random(seed);
  auto* to = static_cast<char*>(pointer);
  while (bytes > 0) {
    const uint64_t garbage = random.next();
    const std::size_t part = bytes < sizeof(garbage) ? bytes : sizeof(garbage);
    std::memcpy(to, &garbage, part);
    to += part;
    bytes -= part;
  }
}

}  // namespace emulated
