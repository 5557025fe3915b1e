# Warnings are errors in our own code; headers of torch and pybind11 are system headers.
add_library(camfuse_warnings INTERFACE)
target_compile_options(camfuse_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror>)
