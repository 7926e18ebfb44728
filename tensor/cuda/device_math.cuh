// Small pieces of kernels: 16-byte loads and stores of the three float types, sums and maxima over warps and blocks in
// a fixed order, Philox. Storage is f32, bf16 or f16; arithmetic is in f32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tensor/cpu/dropout.h"
#include "tensor/dtype.h"

namespace trireme::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Elements of 16 bytes.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// ---- conversion

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(BF16 v) { return __uint_as_float(static_cast<uint32_t>(v.bits) << 16); }
__device__ inline float to_float(F16 v) { return __half2float(__ushort_as_half(v.bits)); }

template <class T>
__device__ inline T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) { return v; }
template <>
__device__ inline BF16 from_float<BF16>(float v) { return {__bfloat16_as_ushort(__float2bfloat16_rn(v))}; }
template <>
__device__ inline F16 from_float<F16>(float v) { return {__half_as_ushort(__float2half_rn(v))}; }

template <class T>
__device__ inline float load(const T* p) { return to_float(*p); }
template <class T>
__device__ inline void store(T* p, float v) { *p = from_float<T>(v); }

// v as it would be read back after a store to T.
template <class T>
__device__ inline float rounded(float v) { return to_float(from_float<T>(v)); }

// ---- N elements at once. One access of up to 16 bytes, or several of 16; p is aligned to min(16, N sizeof(T)).

template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Packed {
  T element[N];
};

template <int N, class T>
__device__ inline Packed<T, N> load_packed(const T* p) { return *reinterpret_cast<const Packed<T, N>*>(p); }
template <int N, class T>
__device__ inline void store_packed(T* p, const Packed<T, N>& v) { *reinterpret_cast<Packed<T, N>*>(p) = v; }

template <class T, int N>
__device__ inline void unpack(float (&out)[N], const Packed<T, N>& v) {
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = to_float(v.element[i]);
}

// Two at a time where there are two: one instruction rounds and packs both.
template <class T, int N>
__device__ inline Packed<T, N> pack(const float (&v)[N]) {
  Packed<T, N> out;
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      if constexpr (std::is_same_v<T, BF16>) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(v[i], v[i + 1]);
        out.element[i] = {__bfloat16_as_ushort(two.x)};
        out.element[i + 1] = {__bfloat16_as_ushort(two.y)};
      } else {
        const __half2 two = __floats2half2_rn(v[i], v[i + 1]);
        out.element[i] = {__half_as_ushort(two.x)};
        out.element[i + 1] = {__half_as_ushort(two.y)};
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) out.element[i] = from_float<T>(v[i]);
  }
  return out;
}

template <int N, class T>
__device__ inline void load_n(float (&out)[N], const T* p) { unpack(out, load_packed<N>(p)); }
template <int N, class T>
__device__ inline void store_n(T* p, const float (&v)[N]) { store_packed<N>(p, pack<T>(v)); }

// ---- over the lanes of a warp; every lane gets the result, and the order is a butterfly's, always the same

template <class V>
__device__ inline V warp_sum(V v) {
#pragma unroll
  for (int d = kWarp / 2; d; d /= 2) v += __shfl_xor_sync(kAllLanes, v, d);
  return v;
}
// As `b > a ? b : a`: a NaN never wins.
__device__ inline float larger(float a, float b) { return b > a ? b : a; }
__device__ inline float warp_max(float v) {
#pragma unroll
  for (int d = kWarp / 2; d; d /= 2) v = larger(v, __shfl_xor_sync(kAllLanes, v, d));
  return v;
}

// ---- over a block of kThreads threads in x (a multiple of 32, at most 1024); every thread gets the result. `shared`
// has kThreads / 32 elements, which may be used again after a __syncthreads().

template <int kThreads, class V>
__device__ inline V block_sum(V v, V* shared) {
  constexpr int kWarps = kThreads / kWarp;
  v = warp_sum(v);
  if constexpr (kWarps == 1) return v;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = v;
  __syncthreads();
  V sum = shared[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += shared[w];
  return sum;
}
template <int kThreads>
__device__ inline float block_max(float v, float* shared) {
  constexpr int kWarps = kThreads / kWarp;
  v = warp_max(v);
  if constexpr (kWarps == 1) return v;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = v;
  __syncthreads();
  float best = shared[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) best = larger(best, shared[w]);
  return best;
}

// ---- dropout masks, word for word those of tensor/rng.h

struct Words {
  uint32_t word[4];
};

__device__ inline Words philox(uint64_t seed, uint32_t stream, uint64_t row, uint32_t column_div_4) {
  uint32_t c0 = static_cast<uint32_t>(row), c1 = static_cast<uint32_t>(row >> 32), c2 = column_div_4, c3 = stream;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The words of `row` (a row key) for columns [column, column + N), counted from the mask's first column. N is 1 or a
// multiple of 4, `column` a multiple of 4 in the latter case.
template <int N>
__device__ inline void mask_words(uint32_t (&words)[N], const cpu::DropoutMask& mask, int64_t row_key, int64_t column) {
  static_assert(N == 1 || N % 4 == 0);
  const int64_t at = mask.first_column + column;
  const uint32_t first = static_cast<uint32_t>(at / 4);
  const int skip = static_cast<int>(at % 4);
  const uint64_t row = static_cast<uint64_t>(row_key);
  if constexpr (N == 1) {
    const Words w = philox(mask.seed, mask.stream, row, first);
    words[0] = skip == 0 ? w.word[0] : skip == 1 ? w.word[1] : skip == 2 ? w.word[2] : w.word[3];
  } else {
    uint32_t drawn[N + 4];  // indexed by constants alone, so that it stays in registers
#pragma unroll
    for (int b = 0; b < N; b += 4) {
      const Words w = philox(mask.seed, mask.stream, row, first + b / 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) drawn[b + i] = w.word[i];
    }
    if (skip == 0) {  // the same for every thread of a launch
#pragma unroll
      for (int i = 0; i < N; ++i) words[i] = drawn[i];
      return;
    }
    const Words last = philox(mask.seed, mask.stream, row, first + N / 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) drawn[N + i] = last.word[i];
#pragma unroll
    for (int i = 0; i < N; ++i) words[i] = skip == 1 ? drawn[i + 1] : skip == 2 ? drawn[i + 2] : drawn[i + 3];
  }
}

// v[i] = 0 where dropped, v[i] * scale elsewhere; nothing without a mask.
template <int N>
__device__ inline void apply_mask(float (&v)[N], const cpu::DropoutMask& mask, int64_t row, int64_t column) {
  if (!mask.row_keys) return;
  uint32_t words[N];
  mask_words(words, mask, mask.row_keys[row], column);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = words[i] < mask.threshold ? 0.0f : v[i] * mask.scale;
}

}  // namespace trireme::cuda
