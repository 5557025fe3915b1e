#include "device_memory.h"

#include <sanitizer/asan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "random.h"

namespace emulated {
namespace {

struct Buffer {
  std::string name;
  Side side;
  std::size_t bytes, offset;
};

std::map<char*, Buffer> buffers;  // by the address that allocate() returned

void forbid_all_but(bool host, bool device) {
  for (const auto& [pointer, buffer] : buffers) {
    if (buffer.side == Side::kHost ? host : device) {
      __asan_unpoison_memory_region(pointer, buffer.bytes);
    } else {
      __asan_poison_memory_region(pointer, buffer.bytes);
    }
  }
}

// Behind a report, which tells an address only.
void tell_places(const char*) {
  for (const auto& [pointer, buffer] : buffers) {
    std::fprintf(stderr, "%s (%s): %zu bytes, %p to %p\n", buffer.name.c_str(),
                 buffer.side == Side::kHost ? "host" : "device", buffer.bytes,
                 static_cast<void*>(pointer), static_cast<void*>(pointer + buffer.bytes));
  }
}

}  // namespace

void* allocate(const char* name, Side side, std::size_t bytes, std::size_t offset) {
  auto* start = static_cast<char*>(std::malloc(offset + bytes));
  if (start == nullptr) return nullptr;
  std::memset(start, 0xff, offset + bytes);
  __asan_poison_memory_region(start, side == Side::kHost ? offset : offset + bytes);
  buffers[start + offset] = {name, side, bytes, offset};
  __asan_set_error_report_callback(tell_places);
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
