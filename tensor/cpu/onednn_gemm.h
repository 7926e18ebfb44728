// oneDNN's two ways to multiply. Both use the caller's OpenMP threads. Arguments as in tensor/gemm.h, already checked.
#pragma once

#include "tensor/gemm.h"

namespace trireme::cpu {

void onednn_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                  int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

// Whether the matmul primitive has an optimised implementation for operands of this type on this processor.
bool onednn_matmul_available(DType in);

// By the matmul primitive. Each thread keeps the primitives of the shapes it met last, since making one takes about a
// millisecond. Returns false, with nothing written, where oneDNN has only its reference code for the shape.
bool onednn_matmul(const GemmShape& shape, int threads, float alpha, const void* a, int64_t lda, const void* b,
                   int64_t ldb, float beta, void* c, int64_t ldc);

}  // namespace trireme::cpu
