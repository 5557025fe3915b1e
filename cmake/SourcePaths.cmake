# Messages name source files as from the project's or torch's folder: a module that is given away
# holds no path of the machine that built it.
foreach(folder IN ITEMS "${CMAKE_CURRENT_SOURCE_DIR}" "${TORCH_DIR}/include")
  set(map "-fmacro-prefix-map=${folder}/=")
  add_compile_options(
    "$<$<COMPILE_LANGUAGE:CXX>:${map}>" "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${map}>")
endforeach()
