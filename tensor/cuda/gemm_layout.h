// The row-major product of tensor/gemm.h as a column-major library sees it. No CUDA in here, so that it is
// tested everywhere.
#pragma once

#include <cstdint>

#include "tensor/gemm.h"

namespace trireme::cuda {

// A stored matrix, column-major: element (i, j) at i + j * stride.
struct ColumnMajor {
  int64_t rows = 0, columns = 0, stride = 0;
};

// Memory that holds a row-major matrix holds its transpose column-major. So C^T = op(B)^T op(A)^T: the
// operands change places, and each keeps its transpose flag.
struct ColumnMajorProduct {
  bool transpose_left = false, transpose_right = false;
  ColumnMajor left, right, result;  // B, A and C as stored
};

inline ColumnMajorProduct column_major(const GemmShape& s, int64_t lda, int64_t ldb, int64_t ldc) {
  return {.transpose_left = s.transpose_b,
          .transpose_right = s.transpose_a,
          .left = {s.transpose_b ? s.k : s.n, s.transpose_b ? s.n : s.k, ldb},
          .right = {s.transpose_a ? s.m : s.k, s.transpose_a ? s.k : s.m, lda},
          .result = {s.n, s.m, ldc}};
}

}  // namespace trireme::cuda
