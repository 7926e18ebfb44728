// Products of f32 matrices by the tile unit (AMX) of the processor, which multiplies bf16: each operand is
// rounded to bf16, or taken as the sum of two bf16.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cpu {

// Bytes of scratch for split_gemm() with so many threads.
int64_t split_gemm_scratch(int halves, int64_t m, int64_t n, int64_t k, int threads);

// C = alpha * op(A) * op(B) + beta * C as in tensor/gemm.h, all f32, in any orientation. With beta = 0 C is
// not read.
//   halves = 1  a and b are rounded to the nearest bf16
//   halves = 2  a = a0 + a1 and b = b0 + b1, a0 the nearest bf16 and a1 that of what remains; the sum is over
//               a0 b0 + a0 b1 + a1 b0. What is left out is within 3 * 2^-16 |a| |b| of each term.
// Sums are in f32. A finite number beyond the largest bf16 becomes that one in a0, not infinity. The unit
// takes subnormal bf16 (below 2^-126) for zero, and gives such sums as zero. Where an operand is not finite,
// so is every element of C that it takes part in; with two halves an infinity may turn out as NaN, since a1
// times it has a sign of its own.
//
// An element of C sums over k in an order that depends on k and the transposes alone: neither m and n nor the
// number of threads change its bits.
// REQUIRES: amx_available() of amx_gemm.h; m, n, k > 0; scratch aligned to 64 bytes, for
// omp_get_max_threads().
void split_gemm(int halves, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc,
                void* scratch);

}  // namespace trireme::cpu
