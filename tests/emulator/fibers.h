// Stacks of their own that the program can leave and come back to, without system calls.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emulated {

class Fiber {
 public:
  Fiber() = default;                // stands for the stack that the program came on
  explicit Fiber(unsigned number);  // a new stack; fibers of other numbers lie elsewhere in caches
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls `run` on an empty stack. It must begin with arrived() and
  // never return.
  void begin(void (*run)());
  void arrived();
  // Leaves this fiber, which runs, for `next`; returns when another one switches back to it.
  void switch_to(Fiber& next);
  // The same for good: all that it called has returned.
  [[noreturn]] void end_for(Fiber& next);

 private:
  void leave_for(Fiber& next);

  std::size_t number_ = 0;
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  bool clean_ = true;           // no one was abandoned on this stack
  void* mapping_ = nullptr;
#if EMULATOR_UCONTEXT
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace emulated
