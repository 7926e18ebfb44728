// Compiled for AVX-512 with AMX wherever the compiler can; called only where amx_available(). How the work is laid
// out: panel_gemm.h.
#include "tensor/cpu/split_gemm.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include "tensor/cpu/amx_tiles.h"
#include "tensor/cpu/panel_gemm.h"

namespace trireme::cpu {
namespace {

using namespace avx512;

// The bf16 nearest to 32 numbers, and those nearest to what remains.
template <int H>
inline Converted<H> split(__m512 v0, __m512 v1) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), infinity = _mm512_set1_epi32(0x7f800000),
                high = _mm512_set1_epi32(static_cast<int>(0xffff0000)),
                too_large = _mm512_set1_epi32(0x7f7f8000);  // the least that rounds to infinity
  const __m512i b0 = _mm512_castps_si512(v0), b1 = _mm512_castps_si512(v1);
  const __m512i m0 = _mm512_and_si512(b0, magnitude), m1 = _mm512_and_si512(b1, magnitude);
  const __mmask16 finite0 = _mm512_cmplt_epi32_mask(m0, infinity),
                  finite1 = _mm512_cmplt_epi32_mask(m1, infinity);
  const __mmask16 large0 = _mm512_mask_cmpge_epi32_mask(finite0, m0, too_large),
                  large1 = _mm512_mask_cmpge_epi32_mask(finite1, m1, too_large);
  const __m512i r0 = _mm512_mask_and_epi32(b0, large0, b0, high),
                r1 = _mm512_mask_and_epi32(b1, large1, b1, high);
  Converted<H> out;
  out.part[0] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(r1), _mm512_castsi512_ps(r0));
  if constexpr (H == 2) {
    const auto widened = [](__m256i half) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    };
    const __m512 rest0 = _mm512_maskz_sub_ps(finite0, v0, widened(_mm512_castsi512_si256(out.part[0])));
    const __m512 rest1 = _mm512_maskz_sub_ps(finite1, v1, widened(_mm512_extracti64x4_epi64(out.part[0], 1)));
    // Where the first half is cut off, so is the second, or their sum could be beyond the largest f32.
    const __m512i s0 = _mm512_castps_si512(rest0), s1 = _mm512_castps_si512(rest1);
    out.part[1] =
        (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(_mm512_mask_and_epi32(s1, large1, s1, high)),
                                     _mm512_castsi512_ps(_mm512_mask_and_epi32(s0, large0, s0, high)));
  }
  return out;
}

// Tiles 0 to 3, the sums, gain the products of tiles 4 and 5 by tiles 6 and 7.
inline void multiply_tiles() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// sums[2][2][16][16] of 32 rows of the first factor by 32 columns of the second, over `steps` tiles along k.
template <int H>
inline void multiply(const uint16_t* first, const uint16_t* second, int64_t steps, bool begin, float* sums) {
  constexpr int64_t kNext = kTile * kTile;
  if (begin) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + kNext, 64);
    _tile_loadd(2, sums + 2 * kNext, 64);
    _tile_loadd(3, sums + 3 * kNext, 64);
  }
  constexpr int64_t kHalf = 2 * kTileNumbers;  // from the tiles of one half to those of the other
  for (int64_t step = 0; step < steps; ++step, first += H * kHalf, second += H * kHalf) {
    _tile_loadd(4, first, 64);
    _tile_loadd(5, first + kTileNumbers, 64);
    if constexpr (H == 2) {
      _tile_loadd(6, second + kHalf, 64);
      _tile_loadd(7, second + kHalf + kTileNumbers, 64);
      multiply_tiles();
    }
    _tile_loadd(6, second, 64);
    _tile_loadd(7, second + kTileNumbers, 64);
    multiply_tiles();
    if constexpr (H == 2) {
      _tile_loadd(4, first + kHalf, 64);
      _tile_loadd(5, first + kHalf + kTileNumbers, 64);
      multiply_tiles();
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kNext, 64);
  _tile_stored(2, sums + 2 * kNext, 64);
  _tile_stored(3, sums + 3 * kNext, 64);
}

template <int H>
struct TileUnit {
  static constexpr int kParts = H;
  static constexpr bool kScaled = false;
  using Thread = TileState;
  static Converted<H> convert(__m512 v0, __m512 v1) { return split<H>(v0, v1); }
  static void multiply(const uint16_t* first, const uint16_t* second, int64_t steps, bool begin, const float*,
                       const float*, float* sums) {
    cpu::multiply<H>(first, second, steps, begin, sums);
  }
};

}  // namespace

int64_t split_gemm_scratch(int halves, int64_t m, int64_t n, int64_t k, int threads) {
  return panel_gemm_scratch(halves, m, n, k, threads);
}

void split_gemm(int halves, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc,
                void* scratch) {
  const auto gemm = halves == 1 ? panel_gemm<TileUnit<1>> : panel_gemm<TileUnit<2>>;
  gemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, scratch);
}

}  // namespace trireme::cpu

#else

namespace trireme::cpu {

int64_t split_gemm_scratch(int, int64_t, int64_t, int64_t, int) { return 0; }

void split_gemm(int, bool, bool, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*,
                int64_t, float, float*, int64_t, void*) {
  __builtin_trap();  // REQUIRES: amx_available()
}

}  // namespace trireme::cpu

#endif
