#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace camfuse {
namespace {

// x86-64-v3 and v4 as the psABI defines them, as far as the kernels use them.
Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::kV4 : v3 ? Isa::kV3 : Isa::kBaseline;
#else
  return Isa::kBaseline;
#endif
}

Isa choose_isa() {
  const char* forced = std::getenv("CAMFUSE_ISA");
  if (forced == nullptr || *forced == '\0') return best_isa();
  for (Isa isa : {Isa::kBaseline, Isa::kV3, Isa::kV4}) {
    if (std::strcmp(forced, isa_name(isa)) == 0 && isa <= best_isa()) return isa;
  }
  throw std::runtime_error(std::string("CAMFUSE_ISA must be one of ") + supported_isas() +
                           " on this processor, got '" + forced + "'");
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline: return "baseline";
    case Isa::kV3: return "v3";
    case Isa::kV4: return "v4";
  }
  return "unknown";
}

const char* supported_isas() {
  switch (best_isa()) {
    case Isa::kV4: return "baseline,v3,v4";
    case Isa::kV3: return "baseline,v3";
    default: return "baseline";
  }
}

}  // namespace camfuse
