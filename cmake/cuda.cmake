# Finds CUDA for the option TRIREME_CUDA, and sets TRIREME_HAVE_CUDA. With AUTO, a toolkit that is missing or does not
# work is no error: the program is then built for the CPU alone. Overrides: CUDACXX or CMAKE_CUDA_COMPILER (nvcc),
# CUDA_HOME or CUDA_PATH (the toolkit), CMAKE_CUDA_ARCHITECTURES or CUDAARCHS, TRIREME_CUBLASLT_LIBRARY, NCCL_HOME or
# NCCL_ROOT, TRIREME_NCCL_LIBRARY, TRIREME_NCCL_INCLUDE_DIR.
set(TRIREME_HAVE_CUDA OFF)
if(TRIREME_CUDA)  # AUTO and ON
  # Folders of a toolkit's usual places, and of the wheels that Python's installer brings.
  file(GLOB cuda_folders /usr/local/cuda /opt/cuda /usr/local/cuda-*)
  file(GLOB cuda_wheels
    $ENV{VIRTUAL_ENV}/lib/python3*/site-packages/nvidia/* $ENV{HOME}/.local/lib/python3*/site-packages/nvidia/*
    /usr/local/lib/python3*/dist-packages/nvidia/* /usr/local/lib/python3*/site-packages/nvidia/*)
  set(cuda_hints $ENV{CUDA_HOME} $ENV{CUDA_PATH} ${cuda_folders} ${cuda_wheels})

  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(TRIREME_NVCC nvcc HINTS ${cuda_hints} PATH_SUFFIXES bin)
    if(TRIREME_NVCC)
      set(CMAKE_CUDA_COMPILER ${TRIREME_NVCC})
    endif()
  endif()
  # A100 and H100 (with the instructions that only it has). Newer devices take the code for the first of the two.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
  endif()
  if(CMAKE_CXX_COMPILER_LAUNCHER AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  endif()
  if(TRIREME_CUDA STREQUAL "AUTO")
    include(CheckLanguage)
    check_language(CUDA)  # looks whether nvcc works with this host compiler, without an error if not
  endif()
  if(CMAKE_CUDA_COMPILER OR NOT TRIREME_CUDA STREQUAL "AUTO")
    enable_language(CUDA)
    # CMake 3.25 does not know yet how nvcc is told of C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(TRIREME_HAVE_CUDA ON)
  endif()
endif()

if(TRIREME_HAVE_CUDA)
  find_package(CUDAToolkit QUIET)
  list(PREPEND cuda_hints ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_TARGET_DIR})
  # A wheel has only the versioned name of a library.
  find_library(TRIREME_CUBLASLT_LIBRARY NAMES cublasLt libcublasLt.so.13 libcublasLt.so.12 HINTS ${cuda_hints}
    ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib64 lib)
  set(nccl_hints $ENV{NCCL_ROOT} $ENV{NCCL_HOME} ${cuda_hints})
  find_library(TRIREME_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${nccl_hints} ${CUDAToolkit_LIBRARY_DIR}
    PATH_SUFFIXES lib64 lib)
  find_path(TRIREME_NCCL_INCLUDE_DIR nccl.h HINTS ${nccl_hints} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  set(cuda_lacks "")
  if(NOT TARGET CUDA::cudart_static)
    set(cuda_lacks "its static runtime (libcudart_static.a; set CUDAToolkit_ROOT)")
  elseif(NOT TRIREME_CUBLASLT_LIBRARY)
    set(cuda_lacks "cuBLASLt (set TRIREME_CUBLASLT_LIBRARY)")
  endif()
  if(cuda_lacks AND TRIREME_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: nvcc is ${CMAKE_CUDA_COMPILER}, without ${cuda_lacks}; this build is for the CPU alone")
    set(TRIREME_HAVE_CUDA OFF)
  elseif(cuda_lacks)
    message(FATAL_ERROR "nvcc is ${CMAKE_CUDA_COMPILER}, but ${cuda_lacks} was not found; or use TRIREME_CUDA=OFF to "
      "build for the CPU alone")
  endif()
endif()

if(TRIREME_HAVE_CUDA)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: ${CMAKE_CUDA_COMPILER}, for ${CMAKE_CUDA_ARCHITECTURES}")
  message(STATUS "  cuBLASLt: ${TRIREME_CUBLASLT_LIBRARY}")
  if(TRIREME_NCCL_INCLUDE_DIR)
    message(STATUS "  NCCL: ${TRIREME_NCCL_INCLUDE_DIR}/nccl.h; here the library is ${TRIREME_NCCL_LIBRARY}")
  else()
    message(STATUS "  NCCL: no nccl.h was found (set NCCL_HOME or TRIREME_NCCL_INCLUDE_DIR); tensors on devices will travel "
      "through host memory")
  endif()
elseif(TRIREME_CUDA AND NOT cuda_lacks)
  message(STATUS "CUDA: no working nvcc was found; this build is for the CPU alone")
elseif(NOT TRIREME_CUDA)
  message(STATUS "CUDA: off")
endif()
