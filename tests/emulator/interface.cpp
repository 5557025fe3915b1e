#include "interface.h"

#include <cstring>
#include <exception>

#include "device_memory.h"

namespace emulated {
namespace {

std::string error;

}  // namespace

const Argument& Arguments::find(const char* name, Argument::Kind kind) const {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (std::strcmp(all_[i].name, name) != 0) continue;
    const bool none = kind == Argument::kArray && all_[i].kind == Argument::kNone;
    if (all_[i].kind != kind && !none) {
      constexpr const char* kKinds[] = {"an integer", "a float", "an array or None"};
      throw std::invalid_argument(std::string(name) + " must be " + kKinds[kind]);
    }
    used_[i] = true;
    return all_[i];
  }
  throw std::invalid_argument(std::string("argument ") + name + " is missing");
}

void Arguments::check_all_used() const {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (!used_[i]) {
      throw std::invalid_argument(std::string("the op has no argument ") + all_[i].name);
    }
  }
}

int call(void (*op)(const Arguments&), const Argument* first, int64_t count) noexcept {
  const Arguments arguments({first, static_cast<std::size_t>(count)});
  try {
    op(arguments);
    arguments.check_all_used();
    return 0;
  } catch (const std::exception& problem) {
    error = problem.what();
  } catch (...) {
    error = "an exception of unknown type";
  }
  return 1;
}

}  // namespace emulated

EMULATOR_EXPORT void emulator_begin(uint64_t seed, int multiprocessors, int shared_bytes) noexcept {
  emulated::set_seed(seed);
  emulated::device_size = {multiprocessors, shared_bytes};
}

EMULATOR_EXPORT const char* emulator_error() noexcept { return emulated::error.c_str(); }

EMULATOR_EXPORT void* emulator_allocate(const char* name, int on_device, std::size_t bytes,
                                        std::size_t offset) noexcept {
  const auto side = on_device != 0 ? emulated::Side::kDevice : emulated::Side::kHost;
  return emulated::allocate(name, side, bytes, offset);
}

EMULATOR_EXPORT void emulator_release(void* pointer) noexcept { emulated::release(pointer); }

EMULATOR_EXPORT void emulator_poison(void* pointer, std::size_t bytes, uint64_t seed) noexcept {
  const emulated::Running both(true, true);
  emulated::poison(pointer, bytes, seed);
}

EMULATOR_EXPORT void emulator_copy(void* to, const void* from, std::size_t bytes) noexcept {
  cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, nullptr);
}
