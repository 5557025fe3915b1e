# The part of torch that a stable-ABI extension needs: its headers and libtorch_cpu.so.
#
# find_package(Torch) is not used: with a CUDA build of torch it demands a CUDA toolkit even for a
# CPU-only extension, and it ignores CMAKE_CUDA_ARCHITECTURES.

execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE TORCH_DIR
  OUTPUT_STRIP_TRAILING_WHITESPACE
  COMMAND_ERROR_IS_FATAL ANY)
if(NOT TORCH_DIR)
  message(FATAL_ERROR
    "camfuse: torch is not installed for ${Python_EXECUTABLE}. Install torch >= 2.13 first, then "
    "build with `pip install --no-build-isolation` so that camfuse links the torch you run.")
endif()

set(LIBTORCH_CPU "${TORCH_DIR}/lib/libtorch_cpu.so")
if(NOT EXISTS "${LIBTORCH_CPU}" OR NOT EXISTS "${TORCH_DIR}/include/torch/csrc/stable/ops.h")
  message(FATAL_ERROR "camfuse: ${TORCH_DIR} holds no torch >= 2.13 for Linux")
endif()

add_library(libtorch SHARED IMPORTED)
set_target_properties(libtorch PROPERTIES
  IMPORTED_LOCATION "${LIBTORCH_CPU}"
  INTERFACE_INCLUDE_DIRECTORIES "${TORCH_DIR}/include"
  # The oldest torch whose stable ABI the binary may use: 2.13.
  INTERFACE_COMPILE_DEFINITIONS "TORCH_TARGET_VERSION=0x020d000000000000")
