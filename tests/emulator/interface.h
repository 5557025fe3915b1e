// How Python calls an op: with named numbers and arrays.
//
// An op's file, NAME_interface.cpp, fills the launcher's parameters from them:
//
//   #include "cuda/fused_cam.h"
//   #include "interface.h"
//
//   EMULATED_OP(fused_cam, args) {
//     camfuse::FusedCamParams p{};
//     p.B = args.integer("B");
//     p.maps = args.array<float>("maps");
//     camfuse::cuda::fused_cam(p, nullptr);
//   }
//
// and Python calls it by its name (emulation.py): emulator("fused_cam")(B=2, maps=InOut(maps)).
// Every argument must be asked for; one that is missing or of another kind is an error.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulated_cuda.h"

namespace emulated {

// As worker.py lays it out.
struct Argument {
  enum Kind : int64_t { kInteger, kReal, kArray, kNone };

  const char* name;
  Kind kind;
  int64_t integer;
  double real;
  void* data;
  int64_t item_bytes, rank;
  const int64_t *shape, *strides;  // in elements
};

class Arguments {
 public:
  explicit Arguments(std::span<const Argument> all) : all_(all), used_(all.size()) {}

  int64_t integer(const char* name) const { return find(name, Argument::kInteger).integer; }
  bool flag(const char* name) const { return integer(name) != 0; }
  double real(const char* name) const { return find(name, Argument::kReal).real; }
  // Null where Python gave None.
  template <class T>
  T* array(const char* name) const {
    const Argument& one = find(name, Argument::kArray);
    if constexpr (!std::is_void_v<T>) {
      if (one.kind == Argument::kArray && one.item_bytes != sizeof(T)) {
        throw std::invalid_argument(std::string(name) + " has items of " +
                                    std::to_string(one.item_bytes) + " bytes, expected " +
                                    std::to_string(sizeof(T)));
      }
    }
    return static_cast<T*>(one.data);
  }
  // Empty where Python gave None.
  std::span<const int64_t> shape(const char* name) const { return sizes(name, &Argument::shape); }
  std::span<const int64_t> strides(const char* name) const {
    return sizes(name, &Argument::strides);
  }

  // Throws if an argument was not asked for.
  void check_all_used() const;

 private:
  const Argument& find(const char* name, Argument::Kind kind) const;
  std::span<const int64_t> sizes(const char* name, const int64_t* Argument::* which) const {
    const Argument& one = find(name, Argument::kArray);
    return {one.*which, static_cast<std::size_t>(one.rank)};
  }

  std::span<const Argument> all_;
  mutable std::vector<bool> used_;
};

// Calls `op`; 0, or 1 after an exception, whose text emulator_error() then gives.
int call(void (*op)(const Arguments&), const Argument* first, int64_t count) noexcept;

}  // namespace emulated

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

#define EMULATED_OP(name, args)                                                   \
  static void name##_op(const emulated::Arguments& args);                         \
  EMULATOR_EXPORT int op_##name(const emulated::Argument* first, int64_t count) { \
    return emulated::call(name##_op, first, count);                               \
  }                                                                               \
  static void name##_op(const emulated::Arguments& args)
