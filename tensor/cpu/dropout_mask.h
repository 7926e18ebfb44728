// The dropout mask of one row, drawn with a vectorised Philox; word for word that of tensor/rng.h.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tensor/cpu/dropout.h"

namespace trireme::cpu::TRIREME_ISA {

// A vector of 64-bit lanes, each with a 32-bit counter in its low half. What lies in the high half never matters,
// since the product looks at low halves only; so a round is two products, two moves of high halves and two xors, where
// loops over 32-bit words, left to the compiler, need shuffles around each product (4 times slower).
#if defined(__AVX512F__)
using Lanes = __m512i;
// The zero-masking forms with a full mask: gcc 12 warns of its own header in the plain ones.
inline Lanes low_product(Lanes a, Lanes b) { return _mm512_maskz_mul_epu32(0xff, a, b); }
inline Lanes high_half(Lanes a) { return _mm512_maskz_shuffle_epi32(0xffff, a, static_cast<_MM_PERM_ENUM>(0xF5)); }
inline Lanes even_lanes(Lanes a, Lanes b) { return _mm512_maskz_unpacklo_epi64(0xff, a, b); }
inline Lanes odd_lanes(Lanes a, Lanes b) { return _mm512_maskz_unpackhi_epi64(0xff, a, b); }
#elif defined(__AVX2__)
using Lanes = __m256i;
inline Lanes low_product(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
inline Lanes high_half(Lanes a) { return _mm256_shuffle_epi32(a, 0xF5); }
inline Lanes even_lanes(Lanes a, Lanes b) { return _mm256_unpacklo_epi64(a, b); }
inline Lanes odd_lanes(Lanes a, Lanes b) { return _mm256_unpackhi_epi64(a, b); }
#elif defined(__x86_64__)
using Lanes = __m128i;
inline Lanes low_product(Lanes a, Lanes b) { return _mm_mul_epu32(a, b); }
inline Lanes high_half(Lanes a) { return _mm_shuffle_epi32(a, 0xF5); }
inline Lanes even_lanes(Lanes a, Lanes b) { return _mm_unpacklo_epi64(a, b); }
inline Lanes odd_lanes(Lanes a, Lanes b) { return _mm_unpackhi_epi64(a, b); }
#else
typedef long long Lanes __attribute__((vector_size(16)));
inline Lanes low_product(Lanes a, Lanes b) { return (a & 0xffffffffll) * (b & 0xffffffffll); }
inline Lanes high_half(Lanes a) { return (a >> 32) & 0xffffffffll; }
inline Lanes even_lanes(Lanes a, Lanes b) { return Lanes{a[0], b[0]}; }
inline Lanes odd_lanes(Lanes a, Lanes b) { return Lanes{a[1], b[1]}; }
#endif
constexpr int64_t kMaskLanes = sizeof(Lanes) / 8;
constexpr int64_t kMaskStep = 2 * kMaskLanes;  // two vectors at once hide the latency of the products

// Words of the 4-column blocks first_block .. first_block + num_blocks - 1 of `row`. Writes whole steps: `words` has
// room for num_blocks rounded up to kMaskStep, times 4.
inline void philox_words(uint32_t* words, uint64_t seed, uint32_t stream, uint64_t row, uint32_t first_block,
                         int64_t num_blocks) {
  const Lanes zero = {};
  const Lanes row_low = zero + static_cast<long long>(row & 0xffffffffu);
  const Lanes row_high = zero + static_cast<long long>(row >> 32);
  const Lanes factor0 = zero + 0xD2511F53ll, factor1 = zero + 0xCD9E8D57ll, low_half = zero + 0xffffffffll;
  // Lane l of a vector counts block l/2 in even lanes and half a vector further in odd ones, so that the unpacking at
  // the end leaves the words in order.
  Lanes lane_block = {};
  for (int64_t l = 0; l < kMaskLanes; ++l) lane_block[l] = l / 2 + l % 2 * (kMaskLanes / 2);
  for (int64_t b = 0; b < num_blocks; b += kMaskStep) {
    Lanes c0[2], c1[2], c2[2], c3[2];
    for (int i = 0; i < 2; ++i) {
      c0[i] = row_low;
      c1[i] = row_high;
      c2[i] = lane_block + (static_cast<long long>(first_block) + b + i * kMaskLanes);
      c3[i] = zero + static_cast<long long>(stream);
    }
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < 2; ++i) {
        const Lanes p0 = low_product(c0[i], factor0), p1 = low_product(c2[i], factor1);
        // One by shuffle, one by shift: they run on different ports.
        c0[i] = high_half(p1) ^ c1[i] ^ (zero + static_cast<long long>(k0));
        c2[i] = (p0 >> 32) ^ c3[i] ^ (zero + static_cast<long long>(k1));
        c1[i] = p1;
        c3[i] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 2; ++i) {
      const Lanes words01 = (c0[i] & low_half) | (c1[i] << 32), words23 = (c2[i] & low_half) | (c3[i] << 32);
      const Lanes first = even_lanes(words01, words23), second = odd_lanes(words01, words23);
      uint32_t* out = words + 4 * (b + i * kMaskLanes);
      __builtin_memcpy(out, &first, sizeof first);
      __builtin_memcpy(out + 2 * kMaskLanes, &second, sizeof second);
    }
  }
}

constexpr int64_t kMaskChunk = 512;  // columns drawn at once; their words stay in the first cache
struct MaskWords {
  alignas(64) uint32_t words[kMaskChunk + 4 * kMaskStep + 4];
};

// The words of columns [begin, end) of a row, end - begin <= kMaskChunk: the first belongs to column `begin`.
inline const uint32_t* draw_mask(MaskWords& buffer, const DropoutMask& mask, int64_t row, int64_t begin, int64_t end) {
  const int64_t column = mask.first_column + begin, skip = column % 4, blocks = (skip + end - begin + 3) / 4;
  philox_words(buffer.words, mask.seed, mask.stream, static_cast<uint64_t>(mask.row_keys[row]),
               static_cast<uint32_t>(column / 4), blocks);
  return buffer.words + skip;
}

}  // namespace trireme::cpu::TRIREME_ISA
