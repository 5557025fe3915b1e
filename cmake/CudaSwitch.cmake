# CAMFUSE_CUDA=auto|on|off decides whether the CUDA backend is compiled; sets CAMFUSE_WITH_CUDA.
#   auto  where a toolkit and a GPU are present
#   on    always; an error without a toolkit
#   off   never
set(CAMFUSE_CUDA "auto" CACHE STRING "Compile the CUDA backend: auto, on or off")
# Every architecture the project supports, and PTX of the newest for those to come.
set(CAMFUSE_CUDA_ARCHITECTURES
  75-real 80-real 86-real 89-real 90-real 100-real 120-real 120-virtual
  CACHE STRING "CUDA architectures to compile")

set(CAMFUSE_WITH_CUDA OFF)
if(CAMFUSE_CUDA STREQUAL "off")
  return()
elseif(NOT CAMFUSE_CUDA MATCHES "^(auto|on)$")
  message(FATAL_ERROR "CAMFUSE_CUDA must be auto, on or off, got '${CAMFUSE_CUDA}'")
endif()

if(CAMFUSE_CUDA STREQUAL "auto" AND NOT EXISTS "/dev/nvidiactl")
  message(STATUS "camfuse: no GPU on this machine, CUDA backend left out (CAMFUSE_CUDA=on forces it)")
  return()
endif()

find_package(CUDAToolkit 12.8 QUIET)
if(NOT CUDAToolkit_FOUND)
  if(CAMFUSE_CUDA STREQUAL "on")
    message(FATAL_ERROR
      "camfuse: CAMFUSE_CUDA=on, but no CUDA toolkit >= 12.8 was found. Put nvcc on PATH or set "
      "CUDAToolkit_ROOT; CAMFUSE_CUDA=off builds the CPU backend alone.")
  endif()
  message(STATUS "camfuse: no CUDA toolkit, CUDA backend left out")
  return()
endif()

# nvcc on PATH may be a wrapper script outside the toolkit's folder: name the real one.
set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
if(EXISTS "${CUDAToolkit_BIN_DIR}/nvcc")
  set(CMAKE_CUDA_COMPILER "${CUDAToolkit_BIN_DIR}/nvcc")
endif()
set(CMAKE_CUDA_ARCHITECTURES "${CAMFUSE_CUDA_ARCHITECTURES}")
enable_language(CUDA)
set(CAMFUSE_WITH_CUDA ON)
