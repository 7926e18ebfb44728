#include "tensor/cpu/weight_gemm.h"

#include <omp.h>

#include <type_traits>

#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kSums = 24;  // open at once; 32 registers
constexpr int kRows = 4, kColumns = 6;
#else
constexpr int kSums = 12;  // 16 registers
constexpr int kRows = 3, kColumns = 4;
#endif
constexpr int64_t kDepth = 1024;   // of the blocks of B that are copied to the first cache level
constexpr int64_t kRowChunk = 64;  // rows of A per copy
// A thread reads several rows of B at once, each the next of a run of rows of its own: memory serves a
// processor that follows eight long runs half as fast again as one that follows one (measured: 20 against 13
// GB/s).
// Of B. Tasks are taken in turn and become smaller towards the end, so that no thread waits long for another,
// even if it is held up.
constexpr int64_t kTaskBytes = 1 << 19, kLastTaskBytes = 1 << 16;
constexpr int64_t kAheadBytes = 1024;       // how far a run is fetched ahead
constexpr int64_t kParallelWork = 1 << 17;  // multiply-adds below which one thread is as fast

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// One stage of sum_lanes_of(): pairs of vectors, each holding sums of 2 * kHalf lanes, become one that holds
// both vectors' sums of kHalf lanes; the first kLanes / 2 / kHalf of them are the first vector's.
template <int kHalf, int N>
inline void halve(Vec* v) {
  if constexpr (kHalf > 0) {
    constexpr int kEach = kLanes / (2 * kHalf);
    IntVec low{}, high{};
    for (int i = 0; i < kLanes; ++i) {
      const int sum = i / kHalf;
      low[i] = sum / kEach * kLanes + sum % kEach * 2 * kHalf + i % kHalf;
      high[i] = low[i] + kHalf;
    }
    constexpr int kNext = (N + 1) / 2;
#pragma GCC unroll 16
    for (int i = 0; i < kNext; ++i) {
      const Vec a = v[2 * i], b = 2 * i + 1 < N ? v[2 * i + 1] : v[2 * i];
      v[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    }
    halve<kHalf / 2, kNext>(v);
  }
}
// out[i] = sum_lanes(v[i]), the same bits, several vectors sharing each addition. Overwrites v; out has room
// for whole vectors.
template <int N>
inline void sum_lanes_of(Vec* v, float* out) {
  halve<kLanes / 2, N>(v);
  for (int i = 0; i < (N + kLanes - 1) / kLanes; ++i) store_vec(out + i * kLanes, v[i]);
}

template <class C>
inline void put(C* c, float sum, float alpha, float beta) {
  store(c, beta == 0 ? alpha * sum : alpha * sum + beta * load(c));
}

// C[i, j * apart] for the first `columns` of S, from open sums.
template <int R, int S, class C>
inline void put_sums(Vec (*sums)[S], int64_t columns, int64_t apart, float alpha, float beta, C* c,
                     int64_t ldc) {
  float total[(R * S + kLanes - 1) / kLanes * kLanes];
  sum_lanes_of<R * S>(sums[0], total);
  for (int i = 0; i < R; ++i)
    for (int64_t j = 0; j < columns; ++j) put(c + i * ldc + j * apart, total[i * S + j], alpha, beta);
}

// R rows of A against S rows of B as they lie, `apart` rows from one to the next.
template <int R, int S, class B, class C>
inline void direct_block(int64_t k, float alpha, const float* a, int64_t lda, const B* b, int64_t ldb,
                         int64_t apart, float beta, C* c, int64_t ldc) {
  const int64_t run = apart * ldb;
  constexpr int64_t kAhead = kAheadBytes / static_cast<int64_t>(sizeof(B));
  constexpr int kSteps = 64 / (kLanes * sizeof(B)) < 1 ? 1 : 64 / (kLanes * sizeof(B));  // to a line
  Vec sums[R][S] = {};
  const auto add = [&](int64_t p) {
    Vec bv[S];
#pragma GCC unroll 8
    for (int j = 0; j < S; ++j) bv[j] = load_vec(b + j * run + p);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec av = load_vec(a + i * lda + p);
#pragma GCC unroll 8
      for (int j = 0; j < S; ++j) sums[i][j] += av * bv[j];
    }
  };
  int64_t p = 0;
  for (; p + kSteps * kLanes <= k; p += kSteps * kLanes) {
#pragma GCC unroll 8
    for (int j = 0; j < S; ++j) __builtin_prefetch(b + j * run + p + kAhead);
#pragma GCC unroll 4
    for (int step = 0; step < kSteps; ++step) add(p + step * kLanes);
  }
  for (; p + kLanes <= k; p += kLanes) add(p);
  if (p < k) {
    Vec bv[S];
    for (int j = 0; j < S; ++j) bv[j] = load_part(b + j * run + p, k - p);
    for (int i = 0; i < R; ++i) {
      const Vec av = load_part(a + i * lda + p, k - p);
      for (int j = 0; j < S; ++j) sums[i][j] += av * bv[j];
    }
  }
  put_sums<R, S>(sums, S, apart, alpha, beta, c, ldc);
}

// All R rows of A.
template <int R, class B, class C>
void direct(int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const B* b, int64_t ldb,
            float beta, C* c, int64_t ldc) {
  constexpr int S = R <= kSums / 8 ? 8 : kSums / R;
  const int64_t run = n / S;
  for (int64_t j = 0; j < run; ++j)
    direct_block<R, S>(k, alpha, a, lda, b + j * ldb, ldb, run, beta, c + j, ldc);
  for (int64_t j = run * S; j < n; ++j)
    direct_block<R, 1>(k, alpha, a, lda, b + j * ldb, ldb, 1, beta, c + j, ldc);
}

// panel[p / kLanes][j][p % kLanes] = B[j * apart, p] as f32, zeros past the end of rows and columns.
template <class B>
inline void pack_panel(const B* b, int64_t run, int64_t columns, int64_t depth, float* panel) {
  int64_t p = 0;
  for (; p + kLanes <= depth; p += kLanes)
    for (int64_t j = 0; j < kColumns; ++j, panel += kLanes)
      store_vec(panel, j < columns ? load_vec(b + j * run + p) : Vec{});
  if (p < depth)
    for (int64_t j = 0; j < kColumns; ++j, panel += kLanes)
      store_vec(panel, j < columns ? load_part(b + j * run + p, depth - p) : Vec{});
}

// Where a panel lies. Sums begin at zero for the first panel of a row of B, else go on from `open`; they are
// left there or, for the last one, put into C.
struct PanelPlace {
  bool first, last;
  int64_t depth, columns, apart;
  const char* ahead;  // rows that are wanted next, ahead_row bytes apart; this many of them are fetched, a
                      // line a step
  int64_t ahead_row, ahead_step, ahead_rows;
};
// R rows of A against a panel.
template <int R, class C>
inline void panel_block(const PanelPlace& at, const float* a, int64_t lda, const float* panel,
                        Vec (*open)[kColumns], float alpha, float beta, C* c, int64_t ldc) {
  Vec sums[R][kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) sums[i][j] = at.first ? Vec{} : open[i][j];
  const auto add = [&](const auto& row) {
    Vec bv[kColumns];
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) bv[j] = load_vec(panel + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec av = row(i);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) sums[i][j] += av * bv[j];
    }
    panel += kColumns * kLanes;
  };
  const char* ahead = at.ahead;
  int64_t p = 0;
  for (; p + kLanes <= at.depth; p += kLanes, ahead += at.ahead_step) {
    for (int64_t row = 0; row < at.ahead_rows; ++row) __builtin_prefetch(ahead + row * at.ahead_row, 0, 2);
    add([&](int i) { return load_vec(a + i * lda + p); });
  }
  if (p < at.depth) add([&](int i) { return load_part(a + i * lda + p, at.depth - p); });
  if (at.last) return put_sums<R, kColumns>(sums, at.columns, at.apart, alpha, beta, c, ldc);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) open[i][j] = sums[i][j];
}

// `rows` <= kRowChunk rows of A against kColumns (or the last few) rows of B, `apart` rows from one to the
// next.
template <class B, class C>
inline void panels(int64_t rows, int64_t columns, int64_t apart, int64_t k, float alpha, const float* a,
                   int64_t lda, const B* b, int64_t ldb, float beta, C* c, int64_t ldc, float* panel) {
  constexpr int64_t kElement = sizeof(B);
  const int64_t run = apart * ldb, passes = rows / kRows + rows % kRows,
                fetch = (kColumns + passes - 1) / passes;
  Vec open[kRowChunk][kColumns];
  for (int64_t p = 0; p < k; p += kDepth) {
    PanelPlace at{p == 0,  p + kDepth >= k, smaller(kDepth, k - p), columns, apart,
                  nullptr, run * kElement,  kLanes * kElement,      0};
    pack_panel(b + p, run, columns, at.depth, panel);
    // Wanted next: these rows' next depth, or the first of the next rows; shared out among the passes.
    const char* next = reinterpret_cast<const char*>(at.last ? b + ldb : b + p + kDepth);
    int64_t i = 0, fetched = 0;
    const auto ahead = [&] {
      at.ahead = next + fetched * run * kElement;
      at.ahead_rows = smaller(fetch, kColumns - fetched);
      fetched += at.ahead_rows;
    };
    for (; i + kRows <= rows; i += kRows) {
      ahead();
      panel_block<kRows>(at, a + i * lda + p, lda, panel, open + i, alpha, beta, c + i * ldc, ldc);
    }
    for (; i < rows; ++i) {
      ahead();
      panel_block<1>(at, a + i * lda + p, lda, panel, open + i, alpha, beta, c + i * ldc, ldc);
    }
  }
}

template <class B, class C>
void columns_of(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const B* b,
                int64_t ldb, float beta, C* c, int64_t ldc) {
  switch (m) {
    case 1:
      return direct<1>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 2:
      return direct<2>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 3:
      return direct<3>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 4:
      return direct<4>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 5:
      return direct<5>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 6:
      return direct<6>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 7:
      return direct<7>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 8:
      return direct<8>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  alignas(64) float panel[kColumns * kDepth];
  const int64_t run = n / kColumns;
  const auto block = [&](int64_t j, int64_t columns, int64_t apart) {
    for (int64_t i = 0; i < m; i += kRowChunk)
      panels(smaller(kRowChunk, m - i), columns, apart, k, alpha, a + i * lda, lda, b + j * ldb, ldb, beta,
             c + i * ldc + j, ldc, panel);
  };
  for (int64_t j = 0; j < run; ++j) block(j, kColumns, run);
  if (n > run * kColumns) block(run * kColumns, n - run * kColumns, 1);
}

template <class B, class C>
void product(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const B* b,
             int64_t ldb, float beta, C* c, int64_t ldc) {
  constexpr int64_t kGrain = 24;  // a multiple of every block's columns
  if (m * n * k <= kParallelWork) return columns_of(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  const int64_t row_bytes = k * static_cast<int64_t>(sizeof(B));
  const int64_t most = kTaskBytes / row_bytes, least = kLastTaskBytes / row_bytes;
  int64_t taken = 0;  // columns
#pragma omp parallel
  {
    const int64_t shares = 2 * omp_get_num_threads();
    const auto size = [&](int64_t j) {
      const int64_t share = (n - j) / shares, columns = share > most ? most : share < least ? least : share;
      return smaller((columns / kGrain + 1) * kGrain, n - j);
    };
    for (int64_t j = __atomic_load_n(&taken, __ATOMIC_RELAXED); j < n;) {
      const int64_t columns = size(j);
      if (!__atomic_compare_exchange_n(&taken, &j, j + columns, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
      columns_of(m, columns, k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
      j = __atomic_load_n(&taken, __ATOMIC_RELAXED);
    }
  }
}

}  // namespace

void weight_gemm(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const void* b,
                 int64_t ldb, DType b_type, float beta, void* c, int64_t ldc, DType c_type) {
  with_float_type(b_type, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* bt = static_cast<const T*>(b);
    if (c_type == DType::kF32)
      product(m, n, k, alpha, a, lda, bt, ldb, beta, static_cast<float*>(c), ldc);
    else
      product(m, n, k, alpha, a, lda, bt, ldb, beta, static_cast<T*>(c), ldc);
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
