// Which instruction set the CPU kernels run with, decided once per process.
#pragma once

namespace camfuse {

// Each value names a namespace that holds one build of every kernel (cmake/IsaVariants.cmake).
enum class Isa { kBaseline, kV3, kV4 };

// The best set this processor has, or the one that the environment variable CAMFUSE_ISA
// (baseline, v3, v4) names. Throws if that one is unknown or the processor lacks it.
Isa active_isa();

const char* isa_name(Isa isa);

// The sets this processor can run, best last, separated by commas.
const char* supported_isas();

}  // namespace camfuse

// Calls NAMESPACE::FUNCTION(...) of the active build.
#if defined(__x86_64__)
#define CAMFUSE_DISPATCH_ISA(FUNCTION, ...)                                     \
  (::camfuse::active_isa() == ::camfuse::Isa::kV4   ? v4::FUNCTION(__VA_ARGS__) \
   : ::camfuse::active_isa() == ::camfuse::Isa::kV3 ? v3::FUNCTION(__VA_ARGS__) \
                                                    : baseline::FUNCTION(__VA_ARGS__))
#else
#define CAMFUSE_DISPATCH_ISA(FUNCTION, ...) baseline::FUNCTION(__VA_ARGS__)
#endif
