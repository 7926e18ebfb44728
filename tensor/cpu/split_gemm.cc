// Compiled for AVX-512 with AMX wherever the compiler can; called only where amx_available().
//
// The unit multiplies a tile of 16 rows of 32 numbers, the first factor, by one of 32 x 16 whose rows go in
// pairs, [16][16][2], the second. An operand whose numbers lie one after another along k is a first factor as
// it is; one that lies across is a second one once pairs are interleaved; for the other role its tiles are
// transposed as 16 x 16 words. So C is computed as it is where B is [k, n], and as its transpose B^T A^T
// where B is [n, k]; then at most one operand is transposed.
//
// Whichever role it has, the operand with fewer rows or columns (X, of the two) is put in tiles for all
// threads, and 32 rows or columns of the other (Y) at a time by the thread that multiplies them, straight
// from f32 to the first cache level; each thread's part of C stays with it as tiles until a stretch of k is
// done.
#include "tensor/cpu/split_gemm.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <omp.h>

#include "tensor/cpu/amx_tiles.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/simd.h"

namespace trireme::cpu {
namespace {

using namespace avx512;

constexpr int64_t kTile = 16, kDepth = 32;  // a tile: 16 rows of 32 numbers
constexpr int64_t kTileNumbers = kTile * kDepth;
constexpr int64_t kPanel = 2 * kTile;  // rows or columns of an operand that are multiplied at once
constexpr int64_t kPanelSums = kPanel * kPanel;
constexpr int64_t kSlice = 256;      // along k: Y's part of it stays in the first cache level
constexpr int64_t kStretch = 2048;   // along k, for which X is in tiles, and one sum runs
constexpr int64_t kShareRows = 512;  // of X that a task takes: a slice of them stays in the second level
constexpr int64_t kSharePanels = 8;  // of Y
constexpr int64_t kPassRows = 4096;  // of X that are in tiles at once, 32 MB
constexpr int64_t kParallelWork = 1 << 18;  // multiply-adds below which one thread is as fast

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= kLanes ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

// An operand as `count` rows of A or columns of B, each of k numbers.
struct Operand {
  const float* data;
  int64_t ld;
  int64_t count;
  bool along_k;  // number p of row i is data[i * ld + p], else data[p * ld + i]
  bool first;    // a first factor
};

// The bf16 nearest to 32 numbers, and those nearest to what remains.
template <int H>
struct Halves {
  __m512i part[H];
};
template <int H>
inline Halves<H> split(__m512 v0, __m512 v1) {
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
  Halves<H> out;
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

// Turns v0[0..15], v1[0..15] into pairs v0[0], v1[0], v0[1], ...
inline __m512i interleave(__m512i v) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), v);
}

// Rows [row, row + 32) of X or Y, numbers [p, end) of each, as tiles: to[(end - p) / 32][H][2][512], with
// zeros for what is not there. `fetch`: reads the 32 rows after them into the second cache level.
template <int H>
void pack(const Operand& x, int64_t row, int64_t p, int64_t end, bool fetch, BF16* to) {
  for (; p < end; p += kDepth)
    for (int64_t tile = 0; tile < 2; ++tile, row += kTile) {
      __m512i words[H][kTile];
      const int64_t rows = x.count - row;
      if (x.along_k) {
        const __mmask16 lanes0 = first_lanes(end - p), lanes1 = first_lanes(end - p - kLanes);
        for (int64_t i = 0; i < kTile; ++i) {
          const bool there = i < rows;
          const float* from = x.data + (there ? (row + i) * x.ld + p : 0);
          if (fetch && i + kPanel < rows) {
            _mm_prefetch(from + kPanel * x.ld, _MM_HINT_T1);
            _mm_prefetch(from + kPanel * x.ld + kLanes, _MM_HINT_T1);
          }
          const Halves<H> h = split<H>(_mm512_maskz_loadu_ps(there ? lanes0 : 0, from),
                                       _mm512_maskz_loadu_ps(there ? lanes1 : 0, from + kLanes));
          for (int half = 0; half < H; ++half) words[half][i] = h.part[half];
        }
      } else {
        const __mmask16 lanes = first_lanes(rows);
        for (int64_t i = 0; i < kTile; ++i) {
          const int64_t at = p + 2 * i;
          const float* from = x.data + (at < end ? at * x.ld + row : 0);
          if (fetch && kPanel < rows && at + 1 < end) {
            _mm_prefetch(from + kPanel, _MM_HINT_T1);
            _mm_prefetch(from + kPanel + x.ld, _MM_HINT_T1);
          }
          const Halves<H> h = split<H>(_mm512_maskz_loadu_ps(at < end ? lanes : 0, from),
                                       _mm512_maskz_loadu_ps(at + 1 < end ? lanes : 0, from + x.ld));
          for (int half = 0; half < H; ++half) words[half][i] = interleave(h.part[half]);
        }
      }
      for (int half = 0; half < H; ++half) {
        Vec turned[kTile];
        std::memcpy(turned, words[half], sizeof turned);
        if (x.along_k != x.first) transpose(turned);
        std::memcpy(to + (half * 2 + tile) * kTileNumbers, turned, sizeof turned);
      }
      if (tile == 1) {
        to += 2 * H * kTileNumbers;
        row -= 2 * kTile;
      }
    }
}

// sums[2][2][16][16] of 32 rows of the first factor by 32 columns of the second, over `steps` tiles along k.
template <int H>
inline void multiply(const BF16* first, const BF16* second, int64_t steps, bool begin, float* sums) {
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
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_loadd(6, second, 64);
    _tile_loadd(7, second + kTileNumbers, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    if constexpr (H == 2) {
      _tile_loadd(4, first + kHalf, 64);
      _tile_loadd(5, first + kHalf + kTileNumbers, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kNext, 64);
  _tile_stored(2, sums + 2 * kNext, 64);
  _tile_stored(3, sums + 3 * kNext, 64);
}

struct Output {
  float* c;
  int64_t ldc;
  float alpha, beta;
  bool turned;  // the sums are those of C^T
};

// Adds 32 x 32 sums to rows [i, i + rows) and columns [j, j + columns) of C, at most 32 of each.
void store(const float* sums, const Output& out, int64_t i, int64_t rows, int64_t j, int64_t columns) {
  for (int64_t ti = 0; ti < 2; ++ti)
    for (int64_t tj = 0; tj < 2; ++tj) {
      Vec tile[kTile];
      const float* from = sums + (out.turned ? 2 * tj + ti : 2 * ti + tj) * kTile * kTile;
      for (int64_t r = 0; r < kTile; ++r) tile[r] = load_vec(from + r * kTile);
      if (out.turned) transpose(tile);
      const __mmask16 lanes = first_lanes(columns - tj * kTile);
      for (int64_t r = 0; r < smaller(kTile, rows - ti * kTile); ++r)
        __builtin_prefetch(out.c + (i + ti * kTile + r) * out.ldc + j + tj * kTile + kPanel, 1);
      for (int64_t r = 0; r < smaller(kTile, rows - ti * kTile); ++r) {
        float* to = out.c + (i + ti * kTile + r) * out.ldc + j + tj * kTile;
        Vec sum = broadcast(out.alpha) * tile[r];
        if (out.beta != 0) sum += broadcast(out.beta) * (Vec)_mm512_maskz_loadu_ps(lanes, to);
        _mm512_mask_storeu_ps(to, lanes, (__m512)sum);
      }
    }
}

// Of scratch: X's tiles, then for each thread a slice of a panel of Y and the sums of a task.
struct Layout {
  int64_t x_rows, x_bytes, y_bytes, own_bytes;  // x_rows: that are in tiles at once
};
Layout layout_of(int halves, int64_t x_count, int64_t k) {
  constexpr auto kNumber = static_cast<int64_t>(sizeof(BF16));
  Layout l;
  l.x_rows = smaller(x_count, kPassRows);
  l.x_bytes =
      parts(l.x_rows, kPanel) * kPanel * smaller(kStretch, parts(k, kDepth) * kDepth) * halves * kNumber;
  l.y_bytes = kPanel * kSlice * halves * kNumber;
  l.own_bytes = l.y_bytes + kSharePanels * kShareRows * kPanel * static_cast<int64_t>(sizeof(float));
  return l;
}

// What a task multiplies, over a stretch [begin, end) of k: blocks of 32 rows of X by panels of 32 of Y.
struct Task {
  int64_t begin, end, first_block, end_block, first_panel, end_panel;
};

// x_tiles: X's blocks over the stretch, `block_numbers` apart. Leaves sums[panel][block] of the task.
template <int H>
void run(const Task& t, const Operand& x, const Operand& y, const BF16* x_tiles, int64_t block_numbers,
         BF16* y_tiles, float* sums) {
  for (int64_t p = t.begin; p < t.end; p += kSlice) {
    const int64_t slice_end = smaller(p + kSlice, t.end), steps = parts(slice_end - p, kDepth);
    float* to = sums;
    for (int64_t panel = t.first_panel; panel < t.end_panel; ++panel) {
      pack<H>(y, panel * kPanel, p, slice_end, panel + 1 < t.end_panel, y_tiles);
      for (int64_t block = t.first_block; block < t.end_block; ++block, to += kPanelSums) {
        const BF16* x_here = x_tiles + block * block_numbers + (p - t.begin) * kPanel * H;
        multiply<H>(x.first ? x_here : y_tiles, x.first ? y_tiles : x_here, steps, p == t.begin, to);
      }
    }
  }
}

// The sums of a task into C, in the order of C's memory. X begins at its row `pass`.
void store(const Task& t, const Operand& x, const Operand& y, int64_t pass, bool x_is_a, const float* sums,
           const Output& out) {
  const int64_t panels = t.end_panel - t.first_panel, blocks = t.end_block - t.first_block;
  for (int64_t i = 0; i < panels * blocks; ++i) {
    const int64_t panel = x_is_a ? i % panels : i / blocks, block = x_is_a ? i / panels : i % blocks;
    const int64_t xi = pass + (t.first_block + block) * kPanel, yi = (t.first_panel + panel) * kPanel,
                  nx = smaller(kPanel, x.count - xi), ny = smaller(kPanel, y.count - yi);
    const float* from = sums + (panel * blocks + block) * kPanelSums;
    if (x_is_a)
      store(from, out, xi, nx, yi, ny);
    else
      store(from, out, yi, ny, xi, nx);
  }
}

template <int H>
void product(const Operand& x, const Operand& y, bool x_is_a, int64_t k, const Output& output,
             char* scratch) {
  const Layout layout = layout_of(H, x.count, k);
  const int64_t all_panels = parts(y.count, kPanel);
  const bool parallel = x.count * y.count * k > kParallelWork;
  // Enough tasks for all threads: with fewer rows each, then with fewer panels.
  const int64_t wanted = parallel ? 4 * omp_get_max_threads() : 1;
  int64_t share_rows = kShareRows;
  while (share_rows > 4 * kPanel && parts(layout.x_rows, share_rows) * all_panels < wanted) share_rows /= 2;
  const int64_t panels =
      larger(1, smaller(kSharePanels, parts(layout.x_rows, share_rows) * all_panels / wanted));
  const int64_t groups = parts(all_panels, panels), share_blocks = share_rows / kPanel;
  BF16* x_tiles = reinterpret_cast<BF16*>(scratch);
#pragma omp parallel if (parallel)
  {
    const TileState tiles;
    char* own = scratch + layout.x_bytes + omp_get_thread_num() * layout.own_bytes;
    BF16* y_tiles = reinterpret_cast<BF16*>(own);
    float* sums = reinterpret_cast<float*>(own + layout.y_bytes);
    for (int64_t pass = 0; pass < x.count; pass += layout.x_rows) {
      const int64_t blocks = parts(smaller(layout.x_rows, x.count - pass), kPanel),
                    shares = parts(blocks, share_blocks);
      for (int64_t stretch = 0; stretch < k; stretch += kStretch) {
        const int64_t end = smaller(stretch + kStretch, k), slices = parts(end - stretch, kSlice),
                      block_numbers = parts(end - stretch, kDepth) * kDepth * kPanel * H;
        Output out = output;
        if (stretch > 0) out.beta = 1;
#pragma omp for collapse(2) schedule(static)
        for (int64_t block = 0; block < blocks; ++block)
          for (int64_t slice = 0; slice < slices; ++slice) {
            const int64_t p = stretch + slice * kSlice;
            pack<H>(x, pass + block * kPanel, p, smaller(p + kSlice, end), false,
                    x_tiles + block * block_numbers + slice * kSlice * kPanel * H);
          }
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (int64_t share = 0; share < shares; ++share)
          for (int64_t group = 0; group < groups; ++group) {
            const Task task{stretch,
                            end,
                            share * share_blocks,
                            smaller((share + 1) * share_blocks, blocks),
                            group * panels,
                            smaller((group + 1) * panels, all_panels)};
            run<H>(task, x, y, x_tiles, block_numbers, y_tiles, sums);
            store(task, x, y, pass, x_is_a, sums, out);
          }
      }
    }
  }
}

}  // namespace

int64_t split_gemm_scratch(int halves, int64_t m, int64_t n, int64_t k, int threads) {
  const Layout layout = layout_of(halves, smaller(m, n), k);
  return layout.x_bytes + threads * layout.own_bytes;
}

void split_gemm(int halves, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc,
                void* scratch) {
  const Operand a_rows{a, lda, m, !transpose_a, !transpose_b}, b_columns{b, ldb, n, transpose_b, transpose_b};
  const Output out{c, ldc, alpha, beta, transpose_b};
  const bool x_is_a = m <= n;
  const Operand &x = x_is_a ? a_rows : b_columns, &y = x_is_a ? b_columns : a_rows;
  if (halves == 1)
    product<1>(x, y, x_is_a, k, out, static_cast<char*>(scratch));
  else
    product<2>(x, y, x_is_a, k, out, static_cast<char*>(scratch));
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
