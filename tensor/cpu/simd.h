// Vectors of the widest registers of the instruction set that a kernel file is compiled for, with GCC's
// vector types: loads and stores that convert from storage types, 2^x, transposition and Philox, one number a
// lane. For kernels whose loops the compiler does not vectorise well by itself; the others use the scalar
// pieces of vec.h.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
// GCC 12 takes the deliberately undefined operands of its own AVX-512 intrinsics for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "tensor/cpu/dropout_mask.h"
#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t WordVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

inline Vec broadcast(float v) { return v - Vec{}; }  // not 0 + v, which -0.0 keeps the compiler from folding
inline IntVec lane_numbers() {
  IntVec lanes{};
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

inline Vec load_vec(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_vec(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline Vec load_vec(const BF16* p) {
  HalfVec h;
  std::memcpy(&h, p, sizeof h);
  return std::bit_cast<Vec>(__builtin_convertvector(h, WordVec) << 16);
}
inline void store_vec(BF16* p, Vec v) {
  const WordVec u = std::bit_cast<WordVec>(v);
  const WordVec rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  const WordVec kept = (u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded;  // NaN stays NaN
  const HalfVec h = __builtin_convertvector(kept, HalfVec);
  std::memcpy(p, &h, sizeof h);
}

inline Vec load_vec(const F16* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = load(p + i);
  return v;
#endif
}
inline void store_vec(F16* p, Vec v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; ++i) store(p + i, v[i]);
#endif
}

// The first n lanes, the others zero; nothing past p + n is touched.
template <class T>
inline Vec load_part(const T* p, int64_t n) {
  if (n >= kLanes) return load_vec(p);
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = load(p + i);
  return load_vec(lanes);
}
template <class T>
inline void store_part(T* p, Vec v, int64_t n) {
  if (n >= kLanes) return store_vec(p, v);
  float lanes[kLanes];
  store_vec(lanes, v);
  for (int64_t i = 0; i < n; ++i) store(p + i, lanes[i]);
}

// In a tree, so that the order of the sum is fixed by the width alone.
inline float sum_lanes(Vec v) {
  float lanes[kLanes];
  store_vec(lanes, v);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// 2^x for x <= 127; relative error below 2e-7. Exactly 0 below -126.5; NaN stays NaN. A minimax polynomial of
// degree 5 on [-1/2, 1/2], times a power of two made in the exponent bits.
inline Vec exp2_vec(Vec x) {
  const Vec lowest = broadcast(-127.0f);
  // 1.5 * 2^23 + 127: adding it rounds to an integer and leaves the biased exponent in the low bits.
  const Vec magic = broadcast(12582912.0f + 127.0f);
  x = lowest > x ? lowest : x;
  const Vec shifted = x + magic;
  const Vec r = x - (shifted - magic);
  Vec p = broadcast(1.327647217e-03f);
  p = p * r + 9.675541331e-03f;
  p = p * r + 5.550713273e-02f;
  p = p * r + 2.402211972e-01f;
  p = p * r + 6.931469671e-01f;
  p = p * r + 1.000000072e+00f;
  return p * std::bit_cast<Vec>(std::bit_cast<IntVec>(shifted) << 23);
}

// Transposes kLanes x kLanes elements: lane j of v[i] and lane i of v[j] change places.
template <int kHalf>
inline void transpose_stage(Vec* v) {
  if constexpr (kHalf > 0) {
    IntVec low{}, high{};
    for (int i = 0; i < kLanes; ++i) {
      low[i] = (i & kHalf) ? i - kHalf + kLanes : i;
      high[i] = (i & kHalf) ? i + kLanes : i + kHalf;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & kHalf) continue;
      const Vec a = v[i], b = v[i + kHalf];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + kHalf] = __builtin_shuffle(a, b, high);
    }
    transpose_stage<kHalf / 2>(v);
  }
}
inline void transpose(Vec* v) { transpose_stage<kLanes / 2>(v); }

// philox() of tensor/rng.h for kLanes rows at once: word[w] holds word w of each lane's row. Even and odd
// rows go their own ways as the low halves of 64-bit lanes (see dropout_mask.h), and meet at the end.
inline void philox_vec(uint64_t seed, uint32_t stream, WordVec row_low, WordVec row_high,
                       uint32_t column_div_4, WordVec word[4]) {
  const Lanes zero = {};
  const Lanes factor0 = zero + 0xD2511F53ll, factor1 = zero + 0xCD9E8D57ll, low_half = zero + 0xffffffffll;
  Lanes c0[2] = {std::bit_cast<Lanes>(row_low), high_half(std::bit_cast<Lanes>(row_low))};
  Lanes c1[2] = {std::bit_cast<Lanes>(row_high), high_half(std::bit_cast<Lanes>(row_high))};
  Lanes c2[2], c3[2];
  for (int i = 0; i < 2; ++i) {
    c2[i] = zero + static_cast<long long>(column_div_4);
    c3[i] = zero + static_cast<long long>(stream);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 2; ++i) {
      const Lanes p0 = low_product(c0[i], factor0), p1 = low_product(c2[i], factor1);
      c0[i] = high_half(p1) ^ c1[i] ^ (zero + static_cast<long long>(k0));
      c2[i] = (p0 >> 32) ^ c3[i] ^ (zero + static_cast<long long>(k1));
      c1[i] = p1;
      c3[i] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const auto meet = [&](const Lanes* c) { return std::bit_cast<WordVec>((c[0] & low_half) | (c[1] << 32)); };
  word[0] = meet(c0), word[1] = meet(c1), word[2] = meet(c2), word[3] = meet(c3);
}

}  // namespace trireme::cpu::TRIREME_ISA
