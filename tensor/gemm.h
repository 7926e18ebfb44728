// Matrix products: C = alpha * op(A) * op(B) + beta * C, on row-major matrices with leading dimensions.
//
// op(A) is m x k, op(B) is k x n, C is m x n. A is stored [m, k] (lda >= k), or [k, m] (lda >= m) where transpose_a;
// B is stored [k, n] (ldb >= n), or [n, k] (ldb >= k) where transpose_b. Leading dimensions count elements.
// A and B share one type, C has the same or f32:
//
//   in    out          used for
//   f32   f32          everything at f32
//   bf16  bf16 or f32  activations; f32 with beta = 1 accumulates weight gradients
//   f16   f16 or f32   the same
//
// Sums are in f32 whatever the types. With beta = 0, C is written without being read (NaN there does not spread);
// with k = 0, C = beta * C. C must not overlap A or B.
//
// Which library computes a shape is a pure function of the table in force, the shape and the number of threads: no
// call ever times anything, so a run that resumes with the same table, processor and thread count repeats its bits.
// See gemm_table.h. The call takes no lock. It allocates only when a thread first meets a shape or needs more scratch.
#pragma once

#include <cstdint>
#include <ostream>
#include <string_view>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace trireme {

struct GemmShape {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  DType in = DType::kF32;   // of A and B
  DType out = DType::kF32;  // of C
};
std::ostream& operator<<(std::ostream& out, const GemmShape& s);  // "nt f32->f32 1024x768x2304" (m, n, k)

enum class GemmBackend : uint8_t {
  kOwn,           // tensor/cpu/gemm.cc: small products, and few rows against large weights (decoding)
  kOneDnnSgemm,   // dnnl_sgemm; 16-bit operands are widened to f32 block by block
  kOneDnnMatmul,  // the matmul primitive; uses the processor's bf16 units for bf16
  kOpenBlas,      // cblas_sgemm of libopenblas, opened at run time where installed; 16-bit operands are widened
  // f32 operands in fewer bits, by AMX (tensor/cpu/split_gemm.h) or AVX512-FP16 (f16_gemm.h). Chosen only where a run
  // asks for it.
  kBf16x3,        // three products of two bf16 an operand
  kBf16,          // one product of operands rounded to bf16
  kF16,           // one product of operands scaled and rounded to f16, with short sums in f16
};
// Those that differ in their last bits only, among which a table may choose.
constexpr GemmBackend kGemmBackends[] = {GemmBackend::kOwn, GemmBackend::kOneDnnSgemm, GemmBackend::kOneDnnMatmul,
                                         GemmBackend::kOpenBlas};
std::string_view name_of(GemmBackend backend);  // "own", "onednn_sgemm", ..., "bf16x3", "bf16", "f16"

// Whether gemm_with(backend, ...) can compute the shape on this machine. kOwn always can.
bool gemm_available(GemmBackend backend, const GemmShape& shape);

// C = alpha * op(A) * op(B) + beta * C by the backend that the table in force names, threaded over the caller's OpenMP
// threads (one inside a parallel region). Throws ShapeError on negative sizes, too small leading dimensions or a pair
// of types that is not in the list above.
void gemm(const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
          void* c, int64_t ldc);

// The same where the matrices are: on the CPU gemm() above, on a CUDA device by cuBLASLt (cuda/gemm.h), whose products of
// f32 operands are of all their bits, or in tf32 where the table in force asks for that. Throws ConfigError for a CUDA device
// while it asks for one of the precisions that the cpu alone has.
void gemm(Device device, const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
          float beta, void* c, int64_t ldc);

// The same by one backend, for measuring and testing. Throws ConfigError where it is not available.
void gemm_with(GemmBackend backend, const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b,
               int64_t ldb, float beta, void* c, int64_t ldc);

// What products of f32 operands are computed from. PyTorch's float32_matmul_precision has the names highest, high, medium.
enum class MatmulPrecision : uint8_t {
  kF32,
  kBf16x3,  // each operand as the sum of two bf16
  kBf16,    // operands rounded to bf16
  kF16,     // operands scaled by powers of two and rounded to f16, and sums of 32 terms too
  kTf32,    // operands rounded to 10 bits of mantissa: on CUDA devices alone, which have none of the three before
};
std::string_view name_of(MatmulPrecision precision);  // "f32", "bf16x3", "bf16", "f16", "tf32"
// Whether products on `device` can be computed so on this machine.
bool available(MatmulPrecision precision, DeviceKind device = DeviceKind::kCpu);
// What of a machine it takes: "AMX", "AVX512-FP16", "a CUDA device"; empty for kF32.
std::string_view hardware_for(MatmulPrecision precision);

// The threads that a call made here would use.
int gemm_threads();

}  // namespace trireme
