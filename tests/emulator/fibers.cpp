#include "fibers.h"

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace emulated {
namespace {

constexpr std::size_t kGuard = 4096;  // unmapped below each stack, so that overflow is reported
constexpr std::size_t kStack = 64 << 10;
// Stacks whose tops share their low address bits would fight for the same lines of a cache.
constexpr std::size_t kColors = 31;
constexpr std::size_t kColorStep = 128;

Fiber* left = nullptr;  // by the last switch

}  // namespace

#if !EMULATOR_UCONTEXT

// Saves the registers that a call must keep (System V ABI) and the stack pointer, takes the other
// stack and its registers. The control words of x87 and SSE stay: no kernel changes them.
extern "C" void emulator_switch_stack(void** save, void* load);
asm(R"(
  .text
  .hidden emulator_switch_stack
  .globl emulator_switch_stack
  .type emulator_switch_stack, @function
emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch_stack, .-emulator_switch_stack
)");

#endif

Fiber::Fiber(unsigned number) : number_(number), size_(kStack) {
  mapping_ =
      mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping_, kGuard, PROT_NONE);
  bottom_ = static_cast<char*>(mapping_) + kGuard;
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
  __asan_unpoison_memory_region(bottom_, size_);
  munmap(mapping_, kGuard + kStack);
}

void Fiber::begin(void (*run)()) {
  // Whoever was abandoned on this stack left its variables' redzones behind.
  if (!clean_) __asan_unpoison_memory_region(bottom_, size_);
  clean_ = false;
  fake_stack_ = nullptr;
  const std::size_t color = number_ % kColors * kColorStep;
#if EMULATOR_UCONTEXT
  getcontext(&context_);
  context_.uc_stack.ss_sp = const_cast<void*>(bottom_);
  context_.uc_stack.ss_size = size_ - color;
  context_.uc_link = nullptr;
  makecontext(&context_, run, 0);
#else
  auto* top = reinterpret_cast<std::uint64_t*>(
      const_cast<char*>(static_cast<const char*>(bottom_)) + size_ - color);
  *--top = 0;  // where `run` would return to, 8 below a multiple of 16; ends stack traces
  *--top = reinterpret_cast<std::uint64_t>(run);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  stack_pointer_ = top;
#endif
}

void Fiber::arrived() {
  // The bounds of the program's own stack become known when it is first left.
  __sanitizer_finish_switch_fiber(fake_stack_, &left->bottom_, &left->size_);
}

void Fiber::leave_for(Fiber& next) {
  left = this;
#if EMULATOR_UCONTEXT
  swapcontext(&context_, &next.context_);
#else
  emulator_switch_stack(&stack_pointer_, next.stack_pointer_);
#endif
}

void Fiber::switch_to(Fiber& next) {
  __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.size_);
  leave_for(next);
  arrived();
}

void Fiber::end_for(Fiber& next) {
  clean_ = true;
  __sanitizer_start_switch_fiber(nullptr, next.bottom_, next.size_);
  leave_for(next);
  __builtin_unreachable();
}

}  // namespace emulated
