// Matrix products on CUDA, by cuBLASLt. Matrices are row-major with leading dimensions, types and transposes
// as in tensor/gemm.h; pointers are device pointers. Enqueued on cuda::stream(): buffers must live until it
// has come there.
//
// Sums are in f32. Products of f32 operands are exact f32 unless kTf32 asks for operands rounded to 10 bits
// of mantissa, about eight times as fast on an H100.
//
// The algorithm is the first that cuBLASLt's heuristic names for the shape, the leading dimensions, the kind
// of epilogue, and whether all pointers are multiples of 16: nothing is timed, so a run repeats its bits on
// the same processor and library. It is asked once per thread and shape. Workspace, at most 32 MiB, is from
// the allocator.
//
// Throws ShapeError where operands do not fit together, CudaError where cuBLASLt fails, or has no algorithm for a plain
// product.
#pragma once

#include <cstdint>

#include "tensor/fp8.h"
#include "tensor/gemm.h"

namespace trireme::cuda {

enum class F32Products : uint8_t { kExact, kTf32 };
// What the table in force (tensor/gemm_table.h) asks for, of operands of type `in`: kTf32 for f32 where its precision is
// kTf32. Throws ConfigError where that is one of the cpu's alone. (tensor/gemm.cc)
F32Products products_in_force(DType in);

// C = alpha * op(A) * op(B) + beta * C, as gemm() of tensor/gemm.h.
void gemm(const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
          float beta, void* c, int64_t ldc, F32Products products = F32Products::kExact);

// The functions below compute one product and what stands beside it in a layer, in one kernel. k must be
// positive, vectors have the type of C, and C, `saved` and their leading dimensions must be multiples of 16
// bytes where there is a gelu. Each returns false, with nothing done, where cuBLASLt has no algorithm for it.

// C = op(A) op(B) + bias, bias[n] added to every row.
bool gemm_bias(const GemmShape& shape, const void* a, int64_t lda, const void* b, int64_t ldb,
               const void* bias, void* c, int64_t ldc, F32Products products = F32Products::kExact);

// C = gelu(x) with x = op(A) op(B) + bias; gelu in its tanh form, of x before it is rounded. `bias` may be
// null: none. `saved`, if not null, gets x in the type of C, [m, n] with ld_saved.
bool gemm_bias_gelu(const GemmShape& shape, const void* a, int64_t lda, const void* b, int64_t ldb,
                    const void* bias, void* saved, int64_t ld_saved, void* c, int64_t ldc,
                    F32Products products = F32Products::kExact);

// The backward of the layer below a gelu: C = gelu'(saved) * (op(A) op(B)), the gradient of x above.
// `bias_grad`, if not null, gets the sums of C's columns, [n]: written, not added to.
bool gemm_gelu_backward(const GemmShape& shape, const void* a, int64_t lda, const void* b, int64_t ldb,
                        const void* saved, int64_t ld_saved, void* bias_grad, void* c, int64_t ldc,
                        F32Products products = F32Products::kExact);

// C = op(A) op(B) + beta * C, and the sums over k of one operand, which are read anyway: a weight gradient dW
// = dy^T x with the bias gradient beside it.
enum class SumsOf : uint8_t { kA, kB };  // sums[i] = sum over k of op(A)[i, k], or sums[j] of op(B)[k, j]
bool gemm_sums(const GemmShape& shape, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
               void* c, int64_t ldc, SumsOf of, void* sums, F32Products products = F32Products::kExact);

// C[m, n] = scale_a * scale_b * A B^T + beta * C for 8-bit floats, on processors from compute capability 8.9
// on.
//   A [m, k] with lda, B [n, k] with ldb (both as they are stored: the product is of rows with rows), at most
//   one of them kE5M2; scale_a, scale_b: one f32 each, on the device; C f32, bf16 or f16.
// k, lda, ldb, and rows of C in bytes must be multiples of 16; all pointers too.
struct Fp8Matrix {
  const void* data;
  int64_t ld;
  Fp8 type;
  const float* scale;
};
void gemm_fp8(int64_t m, int64_t n, int64_t k, const Fp8Matrix& a, const Fp8Matrix& b, float beta, void* c,
              int64_t ldc, DType out);

// C = beta * C, [m, n] in `dtype`; with beta = 0 without reading it. (tensor/cuda/gemm_scale.cu)
void scale_matrix(int64_t m, int64_t n, float beta, void* c, int64_t ldc, DType dtype);

}  // namespace trireme::cuda
