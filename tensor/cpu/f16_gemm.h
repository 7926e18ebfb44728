// Products of f32 matrices by the f16 arithmetic of AVX-512 (AVX512-FP16): each operand is rounded to f16, sums of
// 32 terms are in f16, and those are added in f32.
#pragma once

#include <cstdint>

namespace trireme::cpu {

// Whether the processor has AVX512-FP16. TRIREME_ISA below avx512 turns it off.
bool f16_available();

// Bytes of scratch for f16_gemm() with so many threads.
int64_t f16_gemm_scratch(int64_t m, int64_t n, int64_t k, int threads);

// C = alpha * op(A) * op(B) + beta * C as in tensor/gemm.h, all f32, in any orientation. With beta = 0 C is
// not read.
//
// Each row of op(A) and each column of op(B) is scaled, over 256 numbers along k at a time, by the power of two that
// takes its largest finite magnitude to [16, 32): no sum of 32 products overflows, and what is lost of a number is
// within 2^-11 of it, 2^-29 of the largest beside it or 2^-147. The scaling is undone in f32: where the largest of a
// row and of a column, rounded so, have a product beyond the range of f32, an element may be infinite or NaN, and
// sums below 2^-126 may be zero. Where an operand is not finite, neither is any element of C that it takes part in.
//
// An element of C sums over k in an order that depends on k and the transposes alone: neither m and n nor the
// number of threads change its bits.
// REQUIRES: f16_available(); m, n, k > 0; scratch aligned to 64 bytes, for omp_get_max_threads().
void f16_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc, void* scratch);

}  // namespace trireme::cpu
