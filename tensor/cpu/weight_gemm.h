// The product of a layer with few rows: y = x W^T, by kernels that read the weights where and as they lie.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// C = alpha * A B^T + beta * C. A f32 [m, k], B [n, k] of any floating type, C f32 or of B's type. Each
// weight is read from memory once for up to 64 rows of A. An element of C sums over k in an order that
// depends on k alone: a row's result has the same bits whatever rows it is batched with and however many
// threads there are.
TRIREME_CPU_KERNEL(weight_gemm,
                   (int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const void* b,
                    int64_t ldb, DType b_type, float beta, void* c, int64_t ldc, DType c_type),
                   (m, n, k, alpha, a, lda, b, ldb, b_type, beta, c, ldc, c_type))

}  // namespace trireme::cpu
