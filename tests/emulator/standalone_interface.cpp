// The checks of the program that a GPU's owner runs, on the emulator.
#include "../standalone/checks.h"
#include "interface.h"

EMULATED_OP(standalone, args) {
  (void)args;
  std::string failures;
  for (const std::string& failure : standalone::run_checks().failures) failures += failure + "\n";
  if (!failures.empty()) throw std::runtime_error(failures);
}
