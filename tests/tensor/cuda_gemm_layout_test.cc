#include <gtest/gtest.h>

#include <vector>

#include "tensor/cuda/gemm_layout.h"
#include "tests/tensor/op_testing.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

// What a column-major library computes: result = op(left) op(right).
void multiply_column_major(const cuda::ColumnMajorProduct& p, const float* left, const float* right,
                           float* result) {
  const auto at = [](const cuda::ColumnMajor& m, const float* data, bool transpose, int64_t i, int64_t j) {
    const int64_t row = transpose ? j : i, column = transpose ? i : j;
    EXPECT_LT(row, m.rows);
    EXPECT_LT(column, m.columns);
    return data[row + column * m.stride];
  };
  const int64_t depth = p.transpose_left ? p.left.rows : p.left.columns;
  EXPECT_EQ(depth, p.transpose_right ? p.right.columns : p.right.rows);
  for (int64_t j = 0; j < p.result.columns; ++j)
    for (int64_t i = 0; i < p.result.rows; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < depth; ++k)
        sum += at(p.left, left, p.transpose_left, i, k) * at(p.right, right, p.transpose_right, k, j);
      result[i + j * p.result.stride] = sum;
    }
}

TEST(CudaGemmLayoutTest, AColumnMajorLibraryComputesTheRowMajorProduct) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      const GemmShape s{transpose_a, transpose_b, 5, 7, 3};
      const int64_t lda = (transpose_a ? s.m : s.k) + 2, ldb = (transpose_b ? s.k : s.n) + 1, ldc = s.n + 4;
      const Tensor a = random({transpose_a ? s.k : s.m, lda}, DType::kF32, 1),
                   b = random({transpose_b ? s.n : s.k, ldb}, DType::kF32, 2),
                   got = random({s.m, ldc}, DType::kF32, 3), want = random({s.m, ldc}, DType::kF32, 3);
      gemm(s, 1, a.raw(), lda, b.raw(), ldb, 0, want.raw(), ldc);
      multiply_column_major(cuda::column_major(s, lda, ldb, ldc), b.data<float>(), a.data<float>(),
                            got.data<float>());
      expect_near(got, want, 1e-6, text(s));
    }
}

}  // namespace
}  // namespace trireme
