// The workspace of one call, in device memory that no one has written.
#pragma once

#include <cstdint>

#include "device_memory.h"

namespace emulated {

class Workspace {
 public:
  explicit Workspace(int64_t bytes)
      : memory_(allocate("workspace", Side::kDevice, static_cast<std::size_t>(bytes), 0)) {
    const Running both(true, true);
    poison(memory_, static_cast<std::size_t>(bytes), 0);
  }
  ~Workspace() { release(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
};

}  // namespace emulated
