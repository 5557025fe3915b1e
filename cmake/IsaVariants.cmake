# add_isa_variants(TARGET SOURCE): compiles SOURCE once per instruction set and links every variant
# into TARGET. SOURCE sees CAMFUSE_ISA, the namespace it must put its symbols in.
function(add_isa_variants target source)
  set(isas baseline)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    list(APPEND isas v3 v4)
  endif()
  set(flags_baseline "")
  set(flags_v3 -march=x86-64-v3)
  set(flags_v4 -march=x86-64-v4 -mprefer-vector-width=512)

  get_filename_component(stem "${source}" NAME_WE)
  foreach(isa IN LISTS isas)
    set(object "${stem}_${isa}")
    add_library(${object} OBJECT "${source}")
    target_include_directories(${object} PRIVATE csrc)
    target_link_libraries(${object} PRIVATE camfuse_warnings camfuse_sanitize)
    target_compile_definitions(${object} PRIVATE CAMFUSE_ISA=${isa})
    # -fno-trapping-math and -fno-math-errno let comparisons and conversions vectorise; they change
    # no result. Contraction is off, so that main loops and tails round alike.
    target_compile_options(${object} PRIVATE
      -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math ${flags_${isa}})
    set_target_properties(${object} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_link_libraries(${target} PRIVATE ${object})
  endforeach()
endfunction()
