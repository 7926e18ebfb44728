// Launching kernels from host functions: sizes of grids, dispatch over the storage types, alignment.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "tensor/cuda/runtime.h"
#include "tensor/dtype.h"

namespace trireme::cuda {

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic; above 48 KiB the kernel's attribute must have been raised
};

// Enqueues kernel(args...) on this thread's stream. An empty grid is no launch. Throws CudaError naming `name` if the
// launch is refused.
template <class... Parameters, class... Args>
void launch(const char* name, void (*kernel)(Parameters...), LaunchShape shape, const Args&... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream();
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...), name);
}

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// A block of 256 threads for rows of `pieces` pieces: along a row as many threads as the power of two that covers it, at
// most 256; the rest of the threads are further rows (y).
inline dim3 row_shape(int64_t pieces) {
  unsigned along = 1;
  while (along < 256 && along < pieces) along *= 2;
  return dim3(along, 256 / along);
}

// Calls fn with a null pointer of the storage type of `dtype`, which is a float type.
template <class Fn>
void with_float_type(DType dtype, Fn&& fn) {
  if (dtype == DType::kF32) return fn(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) return fn(static_cast<BF16*>(nullptr));
  fn(static_cast<F16*>(nullptr));
}

// Whether every pointer may be read and written in pieces of 16 bytes; null is.
template <class... Pointers>
bool aligned16(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) | ...) & 15) == 0;
}

}  // namespace trireme::cuda
