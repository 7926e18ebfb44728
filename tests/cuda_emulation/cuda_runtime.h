// Stands in for the toolkit's header of this name; see README.md.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

// Of the fiber that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

void __syncthreads();

namespace cuda_emulation {

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread);
// Gives `value` to the others of the warp and returns that of the lane `from(lane)`.
uint64_t exchange(uint64_t value, int xor_mask);

}  // namespace cuda_emulation

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  if (mask != 0xffffffffu) __builtin_trap();  // only full warps are emulated
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = cuda_emulation::exchange(bits, lane_mask);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};

template <class... Parameters, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Args&&... args) {
  if (config->dynamicSmemBytes) return cudaErrorInvalidValue;  // not emulated
  const std::tuple<std::decay_t<Parameters>...> values(std::forward<Args>(args)...);
  return cuda_emulation::run(config->gridDim, config->blockDim, [&] { std::apply(kernel, values); });
}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float normcdff(float x) { return 0.5f * std::erfc(-x * 0.70710678f); }
