#include "tensor/cuda/fp8.h"

#include <algorithm>

#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/scratch.h"

#ifdef __CUDACC__
#include <cuda_fp8.h>
#endif

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256, kMostPartials = 1024;
constexpr int kTile = 64;  // of the transpose: rows and columns

// One conversion in hardware where there is one; the same bits either way.
__device__ inline uint8_t narrow(float v, Fp8 type) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, type == Fp8::kE4M3 ? __NV_E4M3 : __NV_E5M2);
#else
  return to_fp8(v, type);
#endif
}

// Magnitudes by their bits, which order as they do, NaN above all.
__device__ inline uint32_t larger_bits(uint32_t a, uint32_t b) { return b > a ? b : a; }
template <int kThreadsOfBlock>
__device__ inline uint32_t block_most(uint32_t v, uint32_t* shared) {
#pragma unroll
  for (int d = kWarp / 2; d; d /= 2) v = larger_bits(v, __shfl_xor_sync(kAllLanes, v, d));
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = v;
  __syncthreads();
  uint32_t most = shared[0];
#pragma unroll
  for (int w = 1; w < kThreadsOfBlock / kWarp; ++w) most = larger_bits(most, shared[w]);
  return most;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) most_kernel(uint32_t* partial, const T* x, int64_t n) {
  uint32_t most = 0;
  const int64_t step = int64_t{gridDim.x} * kThreads * N, first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
#pragma unroll 4
  for (int64_t i = first; i + N <= n; i += step) {
    float v[N];
    load_n<N>(v, x + i);
#pragma unroll
    for (int k = 0; k < N; ++k) most = larger_bits(most, __float_as_uint(v[k]) & 0x7fffffffu);
  }
  const int64_t rest = n / N * N + threadIdx.x;
  if (blockIdx.x == 0 && rest < n) most = larger_bits(most, __float_as_uint(load(x + rest)) & 0x7fffffffu);
  __shared__ uint32_t shared[kThreads / kWarp];
  most = block_most<kThreads>(most, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = most;
}

__global__ void __launch_bounds__(kThreads) scales_kernel(float* scales, const uint32_t* partial, int count, Fp8 type) {
  uint32_t most = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) most = larger_bits(most, partial[i]);
  __shared__ uint32_t shared[kThreads / kWarp];
  most = block_most<kThreads>(most, shared);
  if (threadIdx.x != 0) return;
  const float scale = fp8_scale_for(__uint_as_float(most), type);
  scales[0] = scale;
  scales[1] = 1 / scale;
}

// A block's threads share N columns each of one row after another.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) quantize_kernel(uint8_t* out, int64_t ld_out, const T* x, int64_t rows,
                                                            int64_t columns, Fp8 type, const float* scales) {
  const float scale = scales[0];
  const int64_t pieces = divide_up(ld_out, N);
  for (int64_t p = int64_t{blockIdx.x} * kThreads + threadIdx.x; p < rows * pieces; p += int64_t{gridDim.x} * kThreads) {
    const int64_t row = p / pieces, c = p % pieces * N;
    Packed<uint8_t, N> packed;
    float v[N] = {};
    if (c < columns) load_n<N>(v, x + row * columns + c);  // columns are a multiple of N
#pragma unroll
    for (int k = 0; k < N; ++k) packed.element[k] = narrow(v[k] * scale, type);
    store_packed<N>(out + row * ld_out + c, packed);
  }
}

// A tile is read along rows of x and written along its columns, 4 bytes a thread.
template <class T>
__global__ void __launch_bounds__(kThreads) transpose_kernel(uint8_t* out, int64_t ld_out, const T* x, int64_t rows,
                                                             int64_t columns, Fp8 type, const float* scales) {
  __shared__ uint8_t tile[kTile][kTile + 4];  // [column][row]
  const float scale = scales[0];
  const int64_t first_row = int64_t{blockIdx.y} * kTile, first_column = int64_t{blockIdx.x} * kTile;
  const int column = static_cast<int>(threadIdx.x) % kTile;
#pragma unroll 4
  for (int r = static_cast<int>(threadIdx.x) / kTile; r < kTile; r += kThreads / kTile) {
    const bool inside = first_row + r < rows && first_column + column < columns;
    const float v = inside ? load(x + (first_row + r) * columns + first_column + column) : 0.0f;
    tile[column][r] = inside ? narrow(v * scale, type) : uint8_t{0};
  }
  __syncthreads();
  constexpr int kPieces = kTile / 4;  // ld_out is a multiple of 16
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll 4
  for (int c = static_cast<int>(threadIdx.x) / kPieces; c < kTile; c += kThreads / kPieces) {
    if (first_column + c >= columns || first_row + piece * 4 >= ld_out) continue;
    Packed<uint8_t, 4> packed;
#pragma unroll
    for (int k = 0; k < 4; ++k) packed.element[k] = tile[c][piece * 4 + k];
    store_packed<4>(out + (first_column + c) * ld_out + first_row + piece * 4, packed);
  }
}

}  // namespace

void fp8_scales(float* scales, const void* x, DType dtype, int64_t n, Fp8 type) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const bool vector = aligned16(x);
    const int64_t span = int64_t{kThreads} * (vector ? kVector<T> : 1) * 8;
    const int blocks = static_cast<int>(std::clamp<int64_t>(divide_up(n, span), 1, kMostPartials));
    Scratch scratch(static_cast<size_t>(blocks) * sizeof(uint32_t));
    uint32_t* partial = scratch.as<uint32_t>();
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kThreads)};
    if (vector)
      launch("fp8_scales", most_kernel<T, kVector<T>>, shape, partial, static_cast<const T*>(x), n);
    else
      launch("fp8_scales", most_kernel<T, 1>, shape, partial, static_cast<const T*>(x), n);
    launch("fp8_scales", scales_kernel, {dim3(1), dim3(kThreads)}, scales, partial, blocks, type);
  });
}

void fp8_quantize(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns, Fp8 type,
                  const float* scales) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    constexpr int kMost = kVector<T>;
    const bool vector = columns % kMost == 0 && ld_out % kMost == 0 && aligned16(x) &&
                        reinterpret_cast<uintptr_t>(out) % kMost == 0;
    const int64_t pieces = rows * divide_up(ld_out, vector ? kMost : 1);
    const int64_t blocks = std::min<int64_t>(divide_up(pieces, kThreads), 1 << 16);
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kThreads)};
    const T* in = static_cast<const T*>(x);
    if (vector)
      launch("fp8_quantize", quantize_kernel<T, kMost>, shape, out, ld_out, in, rows, columns, type, scales);
    else
      launch("fp8_quantize", quantize_kernel<T, 1>, shape, out, ld_out, in, rows, columns, type, scales);
  });
}

void fp8_quantize_transposed(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns,
                             Fp8 type, const float* scales) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("fp8_quantize_transposed", transpose_kernel<T>,
           {dim3(static_cast<unsigned>(divide_up(columns, kTile)), static_cast<unsigned>(divide_up(ld_out, kTile))),
            dim3(kThreads)},
           out, ld_out, static_cast<const T*>(x), rows, columns, type, scales);
  });
}

}  // namespace trireme::cuda
