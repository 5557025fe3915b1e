// Uninitialised memory for workspaces, aligned for the widest vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

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

// Lays several arrays out in one allocation: add each, then allocate. AddressSanitizer sees them as
// apart: what follows each array is forbidden ground.
class Workspace {
 public:
  // Sets `*array` to `bytes` bytes of the allocation, once it is made.
  template <class T>
  void add(T** array, int64_t bytes) {
    slots_[count_++] = {reinterpret_cast<void**>(array), size_, bytes};
    size_ += (bytes + 63) / 64 * 64 + kGap;
  }

  void allocate() {
    memory_ = camfuse::allocate(size_);
    for (int i = 0; i < count_; ++i) {
      const Slot& slot = slots_[i];
      *slot.array = memory_.get() + slot.offset;
#ifdef __SANITIZE_ADDRESS__
      const int64_t next = i + 1 < count_ ? slots_[i + 1].offset : size_;
      ASAN_POISON_MEMORY_REGION(memory_.get() + slot.offset + slot.bytes,
                                static_cast<std::size_t>(next - slot.offset - slot.bytes));
#endif
    }
  }

 private:
  struct Slot {
    void** array;
    int64_t offset, bytes;
  };
#ifdef __SANITIZE_ADDRESS__
  static constexpr int64_t kGap = 64;
#else
  static constexpr int64_t kGap = 0;
#endif
  static constexpr int kSlots = 12;
  Slot slots_[kSlots];
  int count_ = 0;
  int64_t size_ = 0;
  AlignedBytes memory_;
};

}  // namespace camfuse
