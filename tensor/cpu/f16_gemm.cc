// Compiled for AVX-512 with its f16 arithmetic wherever the compiler can; called only where f16_available(). How the
// work is laid out: panel_gemm.h. A vector holds 16 columns of the second factor at two neighbouring k, so that a
// pair of a row of the first is one word, which a load broadcasts; even and odd k have sums of their own.
#include "tensor/cpu/f16_gemm.h"

#if defined(__AVX512FP16__)
#include <cpuid.h>

#include "tensor/cpu/isa.h"
#include "tensor/cpu/panel_gemm.h"

namespace trireme::cpu {
namespace {

using namespace avx512_f16;

constexpr int64_t kRows = 8;        // of the first factor whose sums are in registers at once, by 32 columns
constexpr int64_t kChainTiles = 2;  // that a sum in f16 runs over, 16 terms each: one lane takes every other k
constexpr int64_t kWords = kTile;   // pairs along a tile's depth

// Adds the f16 sums of a row to those in f32. By way of memory, since a load converts without a shuffle.
inline void widen(__m512h sums, bool begin, float* wide) {
  alignas(64) uint16_t halves[2 * kLanes];
  _mm512_store_si512(halves, _mm512_castph_si512(sums));
  asm volatile("" : : "m"(halves));  // keeps the compiler from shuffling the register instead
  for (int half = 0; half < 2; ++half) {
    const __m512 terms =
        _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(halves + half * kLanes)));
    float* to = wide + half * kLanes;
    _mm512_store_ps(to, begin ? terms : _mm512_add_ps(_mm512_load_ps(to), terms));
  }
}

// wide[8][2][16][2] of eight rows: over even k, and over odd k.
inline void multiply_rows(const uint16_t* first, const uint16_t* second, int64_t steps, float* wide) {
  for (int64_t step = 0; step < steps; step += kChainTiles) {
    __m512h sums[kRows][2];
    for (auto& row : sums) row[0] = row[1] = _mm512_setzero_ph();
    for (int64_t tile = step; tile < smaller(step + kChainTiles, steps); ++tile) {
      const uint16_t *rows = first + tile * 2 * kTileNumbers, *columns = second + tile * 2 * kTileNumbers;
#pragma GCC unroll 4
      for (int64_t word = 0; word < kWords; ++word) {
        const __m512h left = _mm512_load_ph(columns + word * kDepth),
                      right = _mm512_load_ph(columns + kTileNumbers + word * kDepth);
#pragma GCC unroll 8
        for (int64_t r = 0; r < kRows; ++r) {
          int32_t pair;
          std::memcpy(&pair, rows + r * kDepth + 2 * word, sizeof pair);
          const __m512h both = _mm512_castsi512_ph(_mm512_set1_epi32(pair));
          sums[r][0] = _mm512_fmadd_ph(both, left, sums[r][0]);
          sums[r][1] = _mm512_fmadd_ph(both, right, sums[r][1]);
        }
      }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t side = 0; side < 2; ++side)
        widen(sums[r][side], step == 0, wide + (r * 2 + side) * 2 * kLanes);
  }
}

struct HalfUnit {
  static constexpr int kParts = 1;
  static constexpr bool kScaled = true;
  struct Thread {};

  static Converted<1> convert(__m512 v0, __m512 v1) {
    const __m256i low = _mm512_cvtps_ph(v0, _MM_FROUND_TO_NEAREST_INT),
                  high = _mm512_cvtps_ph(v1, _MM_FROUND_TO_NEAREST_INT);
    return {{_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)}};
  }

  // Takes the largest to [16, 32), those below 2^-118 to less, so that the factor's inverse is a normal f32.
  static __m512 factor(__m512i largest) {
    const __m512i exponent = _mm512_max_epi32(_mm512_srli_epi32(largest, 23), _mm512_set1_epi32(127 - 118));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(4 + 2 * 127), exponent), 23));
  }

  static void multiply(const uint16_t* first, const uint16_t* second, int64_t steps, bool begin,
                       const float* first_sizes, const float* second_sizes, float* sums) {
    alignas(64) static constexpr int32_t kEven[16] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30},
                                         kOdd[16] = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    const __m512i even = _mm512_load_si512(kEven), odd = _mm512_load_si512(kOdd);
    for (int64_t row = 0; row < kPanel; row += kRows) {
      alignas(64) float wide[kRows * 2 * 2 * kLanes];
      multiply_rows(first + row / kTile * kTileNumbers + row % kTile * kDepth, second, steps, wide);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t side = 0; side < 2; ++side) {
          const float* from = wide + (r * 2 + side) * 2 * kLanes;
          const __m512 v0 = _mm512_load_ps(from), v1 = _mm512_load_ps(from + kLanes);
          const __m512 sum =
              _mm512_add_ps(_mm512_permutex2var_ps(v0, even, v1), _mm512_permutex2var_ps(v0, odd, v1));
          const __m512 size = _mm512_mul_ps(_mm512_set1_ps(first_sizes[row + r]),
                                            _mm512_loadu_ps(second_sizes + side * kTile));
          float* to = sums + (((row + r) / kTile * 2 + side) * kTile + (row + r) % kTile) * kTile;
          _mm512_storeu_ps(to, begin ? _mm512_mul_ps(sum, size) : _mm512_fmadd_ps(sum, size, _mm512_loadu_ps(to)));
        }
    }
  }
};

}  // namespace

bool f16_available() {
  static const bool available = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return isa() == Isa::kAvx512 && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 23 & 1) != 0;
  }();
  return available;
}

int64_t f16_gemm_scratch(int64_t m, int64_t n, int64_t k, int threads) {
  return panel_gemm_scratch(HalfUnit::kParts, m, n, k, threads);
}

void f16_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc, void* scratch) {
  panel_gemm<HalfUnit>(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, scratch);
}

}  // namespace trireme::cpu

#else

namespace trireme::cpu {

bool f16_available() { return false; }

int64_t f16_gemm_scratch(int64_t, int64_t, int64_t, int) { return 0; }

void f16_gemm(bool, bool, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t, float,
              float*, int64_t, void*) {
  __builtin_trap();  // REQUIRES: f16_available()
}

}  // namespace trireme::cpu

#endif
