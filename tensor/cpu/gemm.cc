#include "tensor/cpu/gemm.h"

#include <type_traits>

#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;  // sums open at once, of 32 registers
#else
constexpr int kTileRows = 6, kTileVectors = 2;
#endif
constexpr int64_t kSumLength = 512;     // terms that one f32 accumulator takes
constexpr int64_t kParallelWork = 1 << 17;  // multiply-adds below which one thread is as fast

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class C>
inline void put(C* c, float sum, float alpha, float beta) {
  store(c, beta == 0 ? alpha * sum : alpha * sum + beta * load(c));
}

// Rows [0, R) of op(A) against `columns` columns of B, at most V vectors. Steps of A: from row to row and along k.
template <int R, int V, bool kWhole, class A, class B, class C>
inline void tile(int64_t columns, int64_t k, float alpha, const A* a, int64_t row_step, int64_t k_step, const B* b,
                 int64_t ldb, float beta, C* c, int64_t ldc) {
  Vec total[R][V] = {};
  for (int64_t begin = 0; begin < k; begin += kSumLength) {
    const int64_t end = smaller(begin + kSumLength, k);
    Vec sums[R][V] = {};
    for (int64_t p = begin; p < end; ++p) {
      Vec bv[V];
      for (int v = 0; v < V; ++v)
        bv[v] = kWhole ? load_vec(b + p * ldb + v * kLanes) : load_part(b + p * ldb, columns);
      for (int i = 0; i < R; ++i) {
        const float av = load(a + i * row_step + p * k_step);
        for (int v = 0; v < V; ++v) sums[i][v] += av * bv[v];
      }
    }
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < V; ++v) total[i][v] += sums[i][v];
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) {
      float lanes[kLanes];
      __builtin_memcpy(lanes, &total[i][v], sizeof lanes);
      C* to = c + i * ldc + v * kLanes;
      const int64_t count = kWhole ? kLanes : columns;
      for (int64_t j = 0; j < count; ++j) put(to + j, lanes[j], alpha, beta);
    }
}

template <int R, class A, class B, class C>
inline void tile_columns(int64_t columns, int64_t k, float alpha, const A* a, int64_t row_step, int64_t k_step,
                         const B* b, int64_t ldb, float beta, C* c, int64_t ldc) {
  int64_t j = 0;
  for (; j + kTileVectors * kLanes <= columns; j += kTileVectors * kLanes)
    tile<R, kTileVectors, true>(columns, k, alpha, a, row_step, k_step, b + j, ldb, beta, c + j, ldc);
  for (; j + kLanes <= columns; j += kLanes)
    tile<R, 1, true>(columns, k, alpha, a, row_step, k_step, b + j, ldb, beta, c + j, ldc);
  if (j < columns) tile<R, 1, false>(columns - j, k, alpha, a, row_step, k_step, b + j, ldb, beta, c + j, ldc);
}

// C = op(A) B.
template <class A, class B, class C>
void broadcast_form(int64_t m, int64_t n, int64_t k, float alpha, const A* a, int64_t row_step, int64_t k_step,
                    const B* b, int64_t ldb, float beta, C* c, int64_t ldc) {
  constexpr int64_t kShare = 4 * kTileVectors * kLanes;  // columns of one thread's task
  const int64_t row_blocks = (m + kTileRows - 1) / kTileRows, column_blocks = (n + kShare - 1) / kShare;
#pragma omp parallel for collapse(2) schedule(static) if (m * n * k > kParallelWork)
  for (int64_t bj = 0; bj < column_blocks; ++bj)
    for (int64_t bi = 0; bi < row_blocks; ++bi) {
      const int64_t j = bj * kShare, columns = smaller(kShare, n - j);
      int64_t i = bi * kTileRows;
      const int64_t end = smaller(i + kTileRows, m);
      if (end - i == kTileRows) {
        tile_columns<kTileRows>(columns, k, alpha, a + i * row_step, row_step, k_step, b + j, ldb, beta,
                                c + i * ldc + j, ldc);
        continue;
      }
      for (; i < end; ++i)
        tile_columns<1>(columns, k, alpha, a + i * row_step, row_step, k_step, b + j, ldb, beta, c + i * ldc + j,
                        ldc);
    }
}

// C = A^T B^T: used by nothing that is fast, so written to be right.
template <class A, class B, class C>
void both_transposed(int64_t m, int64_t n, int64_t k, float alpha, const A* a, int64_t lda, const B* b, int64_t ldb,
                     float beta, C* c, int64_t ldc) {
#pragma omp parallel for schedule(static) if (m * n * k > kParallelWork)
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float total = 0;
      for (int64_t begin = 0; begin < k; begin += kSumLength) {
        float sum = 0;
        for (int64_t p = begin; p < smaller(begin + kSumLength, k); ++p)
          sum += load(a + p * lda + i) * load(b + j * ldb + p);
        total += sum;
      }
      put(c + i * ldc + j, total, alpha, beta);
    }
}

template <class A, class B, class C>
void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const A* a,
             int64_t lda, const B* b, int64_t ldb, float beta, C* c, int64_t ldc) {
  if (!transpose_b)
    broadcast_form(m, n, k, alpha, a, transpose_a ? 1 : lda, transpose_a ? lda : 1, b, ldb, beta, c, ldc);
  else
    both_transposed(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace

void gemm_own(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const void* a,
              int64_t lda, DType a_type, const void* b, int64_t ldb, DType b_type, float beta, void* c, int64_t ldc,
              DType c_type) {
  with_float_type(b_type, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* bt = static_cast<const T*>(b);
    const auto with_a = [&](const auto* at) {
      if (c_type == DType::kF32)
        product(transpose_a, transpose_b, m, n, k, alpha, at, lda, bt, ldb, beta, static_cast<float*>(c), ldc);
      else
        product(transpose_a, transpose_b, m, n, k, alpha, at, lda, bt, ldb, beta, static_cast<T*>(c), ldc);
    };
    if (a_type == DType::kF32)
      with_a(static_cast<const float*>(a));
    else
      with_a(static_cast<const T*>(a));
  });
}

void widen_block(const void* from, int64_t ld_from, DType dtype, float* to, int64_t ld_to, int64_t rows,
                 int64_t columns) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* source = static_cast<const T*>(from);
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t i = 0; i < rows; ++i) {
      const T* x = source + i * ld_from;
      float* y = to + i * ld_to;
      for (int64_t j = 0; j < columns; ++j) y[j] = load(x + j);
    }
  });
}

void store_block(const float* sum, int64_t ld_sum, float beta, void* c, int64_t ldc, DType dtype, int64_t rows,
                 int64_t columns) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* target = static_cast<T*>(c);
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t i = 0; i < rows; ++i) {
      const float* x = sum + i * ld_sum;
      T* y = target + i * ldc;
      if (beta == 0)
        for (int64_t j = 0; j < columns; ++j) store(y + j, x[j]);
      else
        for (int64_t j = 0; j < columns; ++j) store(y + j, x[j] + beta * load(y + j));
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
