// The project's own matrix product, and the conversions that let an f32 library multiply 16-bit matrices.
// Raw row-major pointers; see tensor/gemm.h for the meaning of the arguments. Nothing is checked here.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// C = alpha * op(A) * op(B) + beta * C. A is f32 or of B's type, and so is C. Each element of C sums over k in an order
// that depends on k and the transposes alone: neither the other sizes nor the number of threads change its bits. So a
// row's result does not depend on the rows it is batched with.
// REQUIRES: transpose_a || !transpose_b; A B^T is weight_gemm(), in weight_gemm.h.
TRIREME_CPU_KERNEL(gemm_own,
                   (bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const void* a,
                    int64_t lda, DType a_type, const void* b, int64_t ldb, DType b_type, float beta, void* c,
                    int64_t ldc, DType c_type),
                   (transpose_a, transpose_b, m, n, k, alpha, a, lda, a_type, b, ldb, b_type, beta, c, ldc, c_type))

// to[i, j] = from[i, j] as f32.
TRIREME_CPU_KERNEL(widen_block,
                   (const void* from, int64_t ld_from, DType dtype, float* to, int64_t ld_to, int64_t rows,
                    int64_t columns),
                   (from, ld_from, dtype, to, ld_to, rows, columns))

// C = sum + beta * C, rounded to the type of C.
TRIREME_CPU_KERNEL(store_block,
                   (const float* sum, int64_t ld_sum, float beta, void* c, int64_t ldc, DType dtype, int64_t rows,
                    int64_t columns),
                   (sum, ld_sum, beta, c, ldc, dtype, rows, columns))

}  // namespace trireme::cpu
