// Compiled for AVX-512 with AMX wherever the compiler can; called only where amx_available().
//
// The unit multiplies a tile of 16 rows of 32 numbers by one of 32 x 16 whose rows go in pairs: [16][16][2].
// Weights are [n, k], so with W as the first factor and x^T as the second no weight changes its place within
// its row: some rows at a time are copied to the second cache level, tile after tile, which reads memory as
// it is fastest and keeps rows that are a power of two apart from pushing each other out of the first level.
// Only the activations are put in another order, once a call. What comes out is C^T, in tiles of 16 x 16 that
// are turned as they are stored.
#include "tensor/cpu/amx_gemm.h"

#if defined(__AMX_BF16__)
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tensor/cpu/amx_tiles.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/simd.h"

namespace trireme::cpu {
namespace {

using namespace avx512;

constexpr int64_t kTile = 16, kDepth = 32;  // a tile: 16 rows of 32 numbers
constexpr int64_t kTileNumbers = kTile * kDepth;
constexpr int64_t kColumns = 2 * kTile;     // of C, and rows of it, that one thread sums at once
constexpr int64_t kCachedBytes = 3 << 18;   // of A, so that its tiles stay in the second cache level
constexpr int64_t kAhead = 512;             // numbers, 1 KB
constexpr int64_t kRuns = 8;                // places of B that one thread reads at once; see weight_gemm.cc
constexpr int64_t kParallelWork = 1 << 19;  // multiply-adds below which one thread is as fast

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// 16 rows of A (fewer: zeros) as tiles of pairs: to[k / 32][pair][row] is a 32-bit word.
void order_rows(const BF16* a, int64_t lda, int64_t rows, int64_t k, BF16* to) {
  for (int64_t p = 0; p < k; p += kDepth, to += kTileNumbers) {
    Vec words[kTile];
    for (int64_t i = 0; i < kTile; ++i) {
      words[i] = Vec{};
      if (i < rows) std::memcpy(&words[i], a + i * lda + p, sizeof(Vec));
    }
    transpose(words);
    for (int64_t i = 0; i < kTile; ++i) std::memcpy(to + i * kDepth, &words[i], sizeof(Vec));
  }
}

// Rows of C from tiles that hold C^T: row i, the first `columns` of T tiles side by side.
template <int T, class C>
inline void store_turned(const float* sums, int64_t tile_stride, int64_t rows, int64_t columns, C* c,
                         int64_t ldc) {
  Vec turned[T][kTile];
  for (int t = 0; t < T; ++t) {
    for (int i = 0; i < kTile; ++i) turned[t][i] = load_vec(sums + t * tile_stride + i * kTile);
    transpose(turned[t]);
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int t = 0; t < T; ++t)
      if (columns > t * kTile) store_part(c + i * ldc + t * kTile, turned[t][i], columns - t * kTile);
}

// Panels of kColumns rows of B as tiles: to[panel][k / 32][2][16][32]. Row j of the copy is row min(j, last)
// of B.
void copy_weights(const BF16* b, int64_t ldb, int64_t panels, int64_t last, int64_t k, BF16* to) {
  const int64_t run = panels * kColumns / kRuns;
  for (int64_t j = 0; j < run; ++j) {
    const BF16* from[kRuns];
    BF16* row[kRuns];
    for (int64_t r = 0; r < kRuns; ++r) {
      const int64_t at = r * run + j;
      from[r] = b + smaller(at, last) * ldb;
      row[r] = to + at / kColumns * kColumns * k + at % kColumns * kDepth;
    }
    for (int64_t p = 0; p < k; p += kDepth)
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRuns; ++r) {
        __builtin_prefetch(from[r] + p + kAhead);
        std::memcpy(row[r] + p * kColumns, from[r] + p, kDepth * sizeof(BF16));
      }
  }
}

// 32 columns of C, i.e. rows of B, for 32 (kTwo) or 16 rows of A, of which `rows` exist. Stores the first
// `columns`.
template <bool kTwo, class C>
inline void block(int64_t k, const BF16* x, const BF16* weights, int64_t rows, int64_t columns, C* c,
                  int64_t ldc) {
  const int64_t x_tiles = kTile * k;  // from one tile of rows to the next
  _tile_zero(0);
  _tile_zero(1);
  if (kTwo) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t p = 0; p < k; p += kDepth, x += kTileNumbers, weights += 2 * kTileNumbers) {
    _tile_loadd(4, weights, 64);
    _tile_loadd(6, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, weights + kTileNumbers, 64);
    _tile_dpbf16ps(1, 5, 6);
    if (kTwo) {
      _tile_loadd(7, x + x_tiles, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  alignas(64) float sums[4 * kTile * kTile];
  constexpr int64_t kNext = kTile * kTile;
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kNext, 64);
  store_turned<2>(sums, kNext, smaller(rows, kTile), columns, c, ldc);
  if (kTwo) {
    _tile_stored(2, sums + 2 * kNext, 64);
    _tile_stored(3, sums + 3 * kNext, 64);
    store_turned<2>(sums + 2 * kNext, kNext, rows - kTile, columns, c + kTile * ldc, ldc);
  }
}

template <class C>
void product(int64_t m, int64_t n, int64_t k, const BF16* a, int64_t lda, const BF16* b, int64_t ldb, C* c,
             int64_t ldc, BF16* scratch) {
  const int64_t row_tiles = (m + kTile - 1) / kTile;
  const int64_t fit = kCachedBytes / (2 * kTile * k * static_cast<int64_t>(sizeof(BF16)));
  const int64_t chunk = 2 * kTile * (fit < 1 ? 1 : fit);  // rows of A
  const bool parallel = m * n * k > kParallelWork;
  const int64_t all_panels = (n + kColumns - 1) / kColumns,
                share = parallel ? all_panels / (4 * omp_get_max_threads()) : 1;
  const int64_t panels = smaller(amx_gemm_panels(k), share < 1 ? 1 : share);  // of a task
#pragma omp parallel if (parallel)
  {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < row_tiles; ++t)
      order_rows(a + t * kTile * lda, lda, smaller(kTile, m - t * kTile), k, scratch + t * kTile * k);
    const TileState tiles;
    BF16* weights =
        scratch + row_tiles * kTile * k + omp_get_thread_num() * amx_gemm_panels(k) * kColumns * k;
    for (int64_t begin = 0; begin < m; begin += chunk) {
#pragma omp for schedule(dynamic, 1) nowait
      for (int64_t first = 0; first < all_panels; first += panels) {
        const int64_t here = smaller(panels, all_panels - first);
        copy_weights(b + first * kColumns * ldb, ldb, here, n - 1 - first * kColumns, k, weights);
        for (int64_t panel = 0; panel < here; ++panel) {
          const int64_t j = (first + panel) * kColumns, columns = smaller(kColumns, n - j);
          for (int64_t i = begin; i < smaller(begin + chunk, m); i += 2 * kTile) {
            const int64_t rows = smaller(2 * kTile, m - i);
            const BF16 *x = scratch + i * k, *w = weights + panel * kColumns * k;
            if (rows > kTile)
              block<true>(k, x, w, rows, columns, c + i * ldc + j, ldc);
            else
              block<false>(k, x, w, rows, columns, c + i * ldc + j, ldc);
          }
        }
      }
    }
  }
}

bool permitted() {
  // The system gives a process the tile registers when it asks (arch_prctl(2)).
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return isa() == Isa::kAvx512 && __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("avx512bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool amx_available() {
  static const bool available = permitted();
  return available;
}

void amx_gemm(int64_t m, int64_t n, int64_t k, const BF16* a, int64_t lda, const BF16* b, int64_t ldb,
              void* c, int64_t ldc, DType c_type, BF16* scratch) {
  if (c_type == DType::kF32)
    product(m, n, k, a, lda, b, ldb, static_cast<float*>(c), ldc, scratch);
  else
    product(m, n, k, a, lda, b, ldb, static_cast<BF16*>(c), ldc, scratch);
}

}  // namespace trireme::cpu

#else

namespace trireme::cpu {

bool amx_available() { return false; }

void amx_gemm(int64_t, int64_t, int64_t, const BF16*, int64_t, const BF16*, int64_t, void*, int64_t, DType,
              BF16*) {
  __builtin_trap();  // REQUIRES: amx_available()
}

}  // namespace trireme::cpu

#endif
