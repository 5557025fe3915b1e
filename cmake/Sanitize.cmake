# CAMFUSE_SANITIZE=ON builds with AddressSanitizer and UndefinedBehaviorSanitizer, every finding
# fatal. The process that loads the result must preload the compiler's libasan (tools/sanitize.py).
option(CAMFUSE_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)

add_library(camfuse_sanitize INTERFACE)
if(CAMFUSE_SANITIZE)
  set(flags -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all)
  # At -O1 GCC vectorises no loop of its own accord: the gathers it would make are not checked.
  target_compile_options(camfuse_sanitize INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
    ${flags} -O1 -g1 -fno-omit-frame-pointer>)
  target_link_options(camfuse_sanitize INTERFACE ${flags})
endif()
