// y = x W^T in bf16 by the tile unit (AMX) of the processor, for any number of rows, weights as they lie.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cpu {

// Whether the processor has AMX for bf16 and the system lets this process use it. TRIREME_ISA below avx512
// turns it off.
bool amx_available();

// Shapes that amx_gemm() computes: depth in whole tiles, and columns enough to fill some.
constexpr bool amx_gemm_fits(int64_t n, int64_t k) { return n >= 32 && k > 0 && k % 32 == 0; }
// Panels of 32 weights' rows that a thread copies at a time: half a megabyte.
constexpr int64_t amx_gemm_panels(int64_t k) { return k >= 8192 ? 1 : 8192 / k; }
// bf16 elements of scratch for amx_gemm() with so many threads: the rows of A as tiles, and each thread's
// weights.
constexpr int64_t amx_gemm_scratch(int64_t m, int64_t k, int threads) {
  return ((m + 31) / 32 + threads * amx_gemm_panels(k)) * 32 * k;
}

// C = A B^T. A bf16 [m, k], B bf16 [n, k], C bf16 or f32. Sums in f32. The unit takes subnormal inputs for
// zero, and gives such sums as zero. An element of C sums over k in an order that depends on k alone: a row's
// result has the same bits whatever rows it is batched with and however many threads there are.
// REQUIRES: amx_available(), amx_gemm_fits(n, k); scratch for omp_get_max_threads(), aligned to 64 bytes.
void amx_gemm(int64_t m, int64_t n, int64_t k, const BF16* a, int64_t lda, const BF16* b, int64_t ldb,
              void* c, int64_t ldc, DType c_type, BF16* scratch);

}  // namespace trireme::cpu
