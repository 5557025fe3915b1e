// Uninitialised memory for workspaces, aligned for the widest vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace camfuse {

constexpr std::align_val_t kAlignment{64};

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }
};
using AlignedBytes = std::unique_ptr<std::byte, AlignedDelete>;

inline AlignedBytes allocate(int64_t bytes) {
  return AlignedBytes(
      static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), kAlignment)));
}

// Lays several arrays out in one allocation: add each, then allocate.
class Workspace {
 public:
  // Sets `*array` to `bytes` bytes of the allocation, once it is made.
  template <class T>
  void add(T** array, int64_t bytes) {
    slots_[count_++] = {reinterpret_cast<void**>(array), size_};
    size_ += (bytes + 63) / 64 * 64;
  }

  void allocate() {
    memory_ = camfuse::allocate(size_);
    for (int i = 0; i < count_; ++i) *slots_[i].array = memory_.get() + slots_[i].offset;
  }

 private:
  struct Slot {
    void** array;
    int64_t offset;
  };
  static constexpr int kSlots = 8;
  Slot slots_[kSlots];
  int count_ = 0;
  int64_t size_ = 0;
  AlignedBytes memory_;
};

}  // namespace camfuse
