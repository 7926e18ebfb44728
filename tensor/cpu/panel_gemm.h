// The product of f32 matrices by panels of 32 rows and columns in fewer bits, whatever unit multiplies them: what
// split_gemm.cc and f16_gemm.cc share. For files compiled for AVX-512; each with its own TRIREME_ISA, so that no
// function is compiled for the wrong processor.
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
//
// A Unit has
//   kParts              16-bit numbers that stand for one f32
//   kScaled             whether each row of a slice of k is multiplied by a power of two before it is converted
//   Thread              an object that each thread holds while it multiplies
//   convert(v0, v1)     Converted<kParts> of two vectors of 16, after scaling
//   factor(largest)     (kScaled) the power of two for rows whose largest finite magnitudes, as bits, are these
//   multiply(first, second, steps, begin, first_sizes, second_sizes, sums)
//       sums[2][2][16][16] (=, where begin, or +=) 32 rows of the first factor times 32 columns of the second, over
//       `steps` tiles along k; the sizes undo the scaling, one a row and one a column
#pragma once

#include <omp.h>

#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {

constexpr int64_t kTile = 16, kDepth = 32;  // a tile: 16 rows of 32 numbers
constexpr int64_t kTileNumbers = kTile * kDepth;
constexpr int64_t kPanel = 2 * kTile;  // rows or columns of an operand that are multiplied at once
constexpr int64_t kPanelSums = kPanel * kPanel;
constexpr int64_t kSlice = 256;      // along k: Y's part of it stays in the first cache level
constexpr int64_t kStretch = 2048;   // along k, for which X is in tiles, and one sum runs
constexpr int64_t kSlices = kStretch / kSlice;
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

// 32 numbers, each in so many.
template <int kParts>
struct Converted {
  __m512i part[kParts];
};

// Turns v0[0..15], v1[0..15] into pairs v0[0], v1[0], v0[1], ...
inline __m512i interleave(__m512i v) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), v);
}

// The powers of two by which rows [row, row + 32) are multiplied over [p, end), and their inverses. Where they lie
// across, leaves them in copy[end - p][32] too, since the first cache level may not hold them as they are: rows of x
// are often some multiple of 4096 bytes apart.
template <class Unit>
void scale_panel(const Operand& x, int64_t row, int64_t p, int64_t end, bool fetch, float* factors, float* sizes,
                 float* copy) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), infinity = _mm512_set1_epi32(0x7f800000);
  const auto larger_finite = [&](__m512i largest, __m512 v) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(v), magnitude);
    return _mm512_mask_max_epi32(largest, _mm512_cmplt_epi32_mask(bits, infinity), largest, bits);
  };
  for (int64_t tile = 0; tile < 2; ++tile) {
    const int64_t first = row + tile * kTile, rows = x.count - first;
    __m512i largest[kTile] = {};
    if (x.along_k) {
      for (int64_t i = 0; i < smaller(kTile, rows); ++i) {
        const float* from = x.data + (first + i) * x.ld;
        for (int64_t q = p; q < end; q += kLanes)
          largest[i] = larger_finite(largest[i], _mm512_maskz_loadu_ps(first_lanes(end - q), from + q));
      }
      Vec lanes[kTile];
      std::memcpy(lanes, largest, sizeof lanes);
      transpose(lanes);
      std::memcpy(largest, lanes, sizeof lanes);
      for (int64_t i = 1; i < kTile; ++i) largest[0] = _mm512_max_epi32(largest[0], largest[i]);
    } else if (rows > 0) {
      const __mmask16 lanes = first_lanes(rows);
      for (int64_t q = p; q < end; ++q) {
        const float* from = x.data + q * x.ld + first;
        const __m512 v = _mm512_maskz_loadu_ps(lanes, from);
        if (fetch && kPanel < rows) _mm_prefetch(from + kPanel, _MM_HINT_T1);
        largest[q % 4] = larger_finite(largest[q % 4], v);
        _mm512_store_ps(copy + (q - p) * kPanel + tile * kTile, v);
      }
      for (int64_t i = 1; i < 4; ++i) largest[0] = _mm512_max_epi32(largest[0], largest[i]);
    }
    const __m512 factor = Unit::factor(largest[0]);
    _mm512_storeu_ps(factors + tile * kTile, factor);
    _mm512_storeu_ps(sizes + tile * kTile, _mm512_div_ps(_mm512_set1_ps(1), factor));
  }
}

// Rows [row, row + 32) of X or Y, numbers [p, end) of each, as tiles: to[(end - p) / 32][H][2][512], with
// zeros for what is not there. `fetch`: reads the 32 rows after them into the second cache level. Leaves sizes[32],
// by which the rows were divided, where the unit wants them scaled.
template <class Unit>
void pack(Operand x, int64_t row, int64_t p, int64_t end, bool fetch, uint16_t* to, float* sizes) {
  constexpr int H = Unit::kParts;
  alignas(64) float factors[kPanel];
  alignas(64) float copy[Unit::kScaled ? kSlice * kPanel : 1];
  if constexpr (Unit::kScaled) {
    scale_panel<Unit>(x, row, p, end, fetch, factors, sizes, copy);
    if (!x.along_k) {
      x = {copy, kPanel, smaller(kPanel, x.count - row), false, x.first};
      end -= p;
      row = p = 0;
    }
  }
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
          __m512 v0 = _mm512_maskz_loadu_ps(there ? lanes0 : 0, from),
                 v1 = _mm512_maskz_loadu_ps(there ? lanes1 : 0, from + kLanes);
          if constexpr (Unit::kScaled) {
            const __m512 factor = _mm512_set1_ps(factors[tile * kTile + i]);
            v0 = _mm512_mul_ps(v0, factor);
            v1 = _mm512_mul_ps(v1, factor);
          }
          const Converted<H> h = Unit::convert(v0, v1);
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
          __m512 v0 = _mm512_maskz_loadu_ps(at < end ? lanes : 0, from),
                 v1 = _mm512_maskz_loadu_ps(at + 1 < end ? lanes : 0, from + x.ld);
          if constexpr (Unit::kScaled) {
            const __m512 factor = _mm512_load_ps(factors + tile * kTile);
            v0 = _mm512_mul_ps(v0, factor);
            v1 = _mm512_mul_ps(v1, factor);
          }
          const Converted<H> h = Unit::convert(v0, v1);
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

struct Output {
  float* c;
  int64_t ldc;
  float alpha, beta;
  bool turned;  // the sums are those of C^T
};

// Adds 32 x 32 sums to rows [i, i + rows) and columns [j, j + columns) of C, at most 32 of each.
inline void store(const float* sums, const Output& out, int64_t i, int64_t rows, int64_t j, int64_t columns) {
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

// Of scratch: X's tiles and sizes, then for each thread a slice of a panel of Y and the sums of a task.
struct Layout {
  int64_t x_rows, x_bytes, x_size_bytes, y_bytes, own_bytes;  // x_rows: that are in tiles at once
};
inline Layout layout_of(int number_parts, int64_t x_count, int64_t k) {
  constexpr auto kNumber = static_cast<int64_t>(sizeof(uint16_t)), kSize = static_cast<int64_t>(sizeof(float));
  Layout l;
  l.x_rows = smaller(x_count, kPassRows);
  l.x_bytes =
      parts(l.x_rows, kPanel) * kPanel * smaller(kStretch, parts(k, kDepth) * kDepth) * number_parts * kNumber;
  l.x_size_bytes = parts(l.x_rows, kPanel) * kSlices * kPanel * kSize;
  l.y_bytes = kPanel * kSlice * number_parts * kNumber;
  l.own_bytes = l.y_bytes + kSharePanels * kShareRows * kPanel * kSize;
  return l;
}

// What a task multiplies, over a stretch [begin, end) of k: blocks of 32 rows of X by panels of 32 of Y.
struct Task {
  int64_t begin, end, first_block, end_block, first_panel, end_panel;
};

// x_tiles: X's blocks over the stretch, `block_numbers` apart; x_sizes: theirs, kSlices * 32 apart. Leaves
// sums[panel][block] of the task.
template <class Unit>
void run(const Task& t, const Operand& x, const Operand& y, const uint16_t* x_tiles, int64_t block_numbers,
         const float* x_sizes, uint16_t* y_tiles, float* y_sizes, float* sums) {
  for (int64_t p = t.begin; p < t.end; p += kSlice) {
    const int64_t slice_end = smaller(p + kSlice, t.end), steps = parts(slice_end - p, kDepth);
    float* to = sums;
    for (int64_t panel = t.first_panel; panel < t.end_panel; ++panel) {
      pack<Unit>(y, panel * kPanel, p, slice_end, panel + 1 < t.end_panel, y_tiles, y_sizes);
      for (int64_t block = t.first_block; block < t.end_block; ++block, to += kPanelSums) {
        const uint16_t* x_here = x_tiles + block * block_numbers + (p - t.begin) * kPanel * Unit::kParts;
        const float* sizes_here = x_sizes + (block * kSlices + (p - t.begin) / kSlice) * kPanel;
        if (x.first)
          Unit::multiply(x_here, y_tiles, steps, p == t.begin, sizes_here, y_sizes, to);
        else
          Unit::multiply(y_tiles, x_here, steps, p == t.begin, y_sizes, sizes_here, to);
      }
    }
  }
}

// The sums of a task into C, in the order of C's memory. X begins at its row `pass`.
inline void store(const Task& t, const Operand& x, const Operand& y, int64_t pass, bool x_is_a, const float* sums,
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

template <class Unit>
void product(const Operand& x, const Operand& y, bool x_is_a, int64_t k, const Output& output,
             char* scratch) {
  constexpr int H = Unit::kParts;
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
  uint16_t* x_tiles = reinterpret_cast<uint16_t*>(scratch);
  float* x_sizes = reinterpret_cast<float*>(scratch + layout.x_bytes);
#pragma omp parallel if (parallel)
  {
    [[maybe_unused]] const typename Unit::Thread state;
    char* own = scratch + layout.x_bytes + layout.x_size_bytes + omp_get_thread_num() * layout.own_bytes;
    uint16_t* y_tiles = reinterpret_cast<uint16_t*>(own);
    float* sums = reinterpret_cast<float*>(own + layout.y_bytes);
    alignas(64) float y_sizes[kPanel];
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
            pack<Unit>(x, pass + block * kPanel, p, smaller(p + kSlice, end), false,
                       x_tiles + block * block_numbers + slice * kSlice * kPanel * H,
                       x_sizes + (block * kSlices + slice) * kPanel);
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
            run<Unit>(task, x, y, x_tiles, block_numbers, x_sizes, y_tiles, y_sizes, sums);
            store(task, x, y, pass, x_is_a, sums, out);
          }
      }
    }
  }
}

inline int64_t panel_gemm_scratch(int number_parts, int64_t m, int64_t n, int64_t k, int threads) {
  const Layout layout = layout_of(number_parts, smaller(m, n), k);
  return layout.x_bytes + layout.x_size_bytes + threads * layout.own_bytes;
}

// As gemm() of tensor/gemm.h, all f32; scratch aligned to 64 bytes.
template <class Unit>
void panel_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc, void* scratch) {
  const Operand a_rows{a, lda, m, !transpose_a, !transpose_b}, b_columns{b, ldb, n, transpose_b, transpose_b};
  const Output out{c, ldc, alpha, beta, transpose_b};
  const bool x_is_a = m <= n;
  product<Unit>(x_is_a ? a_rows : b_columns, x_is_a ? b_columns : a_rows, x_is_a, k, out,
                static_cast<char*>(scratch));
}

}  // namespace trireme::cpu::TRIREME_ISA
