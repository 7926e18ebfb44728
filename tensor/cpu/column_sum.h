// Adds up the partial column sums of row blocks; see row_blocks.h.
#pragma once

#include "tensor/cpu/row_blocks.h"
#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

// sum[c] = partial[0][c] + partial[1][c] + ..., rows of the partials being `stride` floats apart.
inline void add_partials(float* sum, const float* partial, int64_t num_partials, int64_t stride, int64_t dim) {
  constexpr int64_t kColumns = 256;
#pragma omp parallel for schedule(static) if (num_partials * dim > kParallelElements)
  for (int64_t begin = 0; begin < dim; begin += kColumns) {
    const int64_t n = dim - begin < kColumns ? dim - begin : kColumns;
    float* out = sum + begin;
    for (int64_t c = 0; c < n; ++c) out[c] = 0;
    for (int64_t p = 0; p < num_partials; ++p) {
      const float* in = partial + p * stride + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) out[c] += in[c];
    }
  }
}

// Calls fn(block, first_row, end_row) for every row block, on the threads of the caller.
template <class Fn>
inline void for_row_blocks(int64_t rows, int64_t dim, Fn&& fn) {
  const int64_t block_rows = rows_per_block(rows), blocks = column_partials(rows);
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * block_rows, end = begin + block_rows;
    fn(b, begin, end < rows ? end : rows);
  }
}

}  // namespace trireme::cpu::TRIREME_ISA
