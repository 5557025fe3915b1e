#include "thread_state.h"

#include <cstdio>

namespace emulated {

std::string hex(unsigned mask) {
  char digits[16];
  std::snprintf(digits, sizeof(digits), "0x%08x", mask);
  return digits;
}

std::string text(const Thread& thread) {
  constexpr const char* kNames[] = {"__syncthreads()",   "__syncwarp()",       "__shfl_sync()",
                                    "__shfl_xor_sync()", "__shfl_down_sync()", "__shfl_up_sync()",
                                    "__ballot_sync()"};
  std::string name = kNames[static_cast<int>(thread.intrinsic)];
  if (thread.intrinsic != Intrinsic::kSyncthreads) name += " with mask " + hex(thread.mask);
  return name + " (" + thread.where.file_name() + ":" + std::to_string(thread.where.line()) + ")";
}

bool waits_for(const Thread& thread, const Thread& other) {
  if (thread.intrinsic == Intrinsic::kSyncthreads) return true;
  return thread.index / kLanes == other.index / kLanes &&
         (thread.mask >> other.index % kLanes & 1) != 0;
}

}  // namespace emulated
