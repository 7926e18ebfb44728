#include "tensor/gemm.h"

#include <omp.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>

#include "base/error.h"
#include "tensor/cpu/amx_gemm.h"
#include "tensor/cpu/f16_gemm.h"
#include "tensor/cpu/gemm.h"
#include "tensor/cpu/onednn_gemm.h"
#include "tensor/cpu/openblas.h"
#include "tensor/cpu/split_gemm.h"
#include "tensor/cpu/weight_gemm.h"
#include "tensor/cuda/gemm.h"
#include "tensor/gemm_table.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

// Beyond this many terms an sgemm is cut along k: at k = 50257 (the input gradient of a language model's head) one
// call runs at two thirds of the rate of a chain of calls that add to C.
constexpr int64_t kMaxSgemmDepth = 6400;

// Blocks of 16-bit operands widened at a time: large enough that each widened element serves about a thousand
// multiply-adds, small enough that the three blocks (20 MiB) stay in the last cache level.
constexpr int64_t kWideRows = 1024, kWideColumns = 1024, kWideDepth = 2048;

// Memory that one thread keeps for the widened blocks.
class Scratch {
 public:
  float* get(int64_t count) {
    if (count > capacity_) {
      block_.reset();
      capacity_ = 0;
      block_.reset(static_cast<float*>(::operator new(static_cast<size_t>(count) * sizeof(float), kAlignment)));
      capacity_ = count;
    }
    return block_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(float* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<float, Delete> block_;
  int64_t capacity_ = 0;
};

float* scratch(int64_t count) {
  thread_local Scratch memory;
  return memory.get(count);
}

const void* element(const void* p, DType dtype, int64_t index) {
  return static_cast<const char*>(p) + index * static_cast<int64_t>(size_of(dtype));
}
void* element(void* p, DType dtype, int64_t index) {
  return static_cast<char*>(p) + index * static_cast<int64_t>(size_of(dtype));
}

using Sgemm = void (*)(bool, bool, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t, float,
                       float*, int64_t);

void deep_sgemm(Sgemm sgemm, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const int64_t chunks = (k + kMaxSgemmDepth - 1) / kMaxSgemmDepth;
  const int64_t step = ((k + chunks - 1) / chunks + 15) / 16 * 16;
  for (int64_t p = 0; p < k; p += step) {
    sgemm(transpose_a, transpose_b, m, n, std::min(step, k - p), alpha, a + (transpose_a ? p * lda : p), lda,
          b + (transpose_b ? p : p * ldb), ldb, p ? 1.0f : beta, c, ldc);
  }
}

// 16-bit A and B through an f32 library, block by block.
void wide_sgemm(Sgemm sgemm, const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
                float beta, void* c, int64_t ldc) {
  const int64_t rows = std::min(s.m, kWideRows), columns = std::min(s.n, kWideColumns),
                depth = std::min(s.k, kWideDepth);
  const bool direct = s.out == DType::kF32;
  float* wide_a = scratch((rows + columns) * depth + (direct ? 0 : rows * columns));
  float* wide_b = wide_a + rows * depth;
  float* sum = wide_b + columns * depth;
  for (int64_t j = 0; j < s.n; j += columns) {
    const int64_t nj = std::min(columns, s.n - j);
    for (int64_t i = 0; i < s.m; i += rows) {
      const int64_t ni = std::min(rows, s.m - i);
      for (int64_t p = 0; p < s.k; p += depth) {
        const int64_t np = std::min(depth, s.k - p);
        // Kept as they are stored: [ni, np] or [np, ni], and [np, nj] or [nj, np].
        const int64_t ld_a = s.transpose_a ? ni : np, ld_b = s.transpose_b ? np : nj;
        cpu::widen_block(element(a, s.in, s.transpose_a ? p * lda + i : i * lda + p), lda, s.in, wide_a, ld_a,
                         s.transpose_a ? np : ni, ld_a);
        cpu::widen_block(element(b, s.in, s.transpose_b ? j * ldb + p : p * ldb + j), ldb, s.in, wide_b, ld_b,
                         s.transpose_b ? nj : np, ld_b);
        if (direct)
          sgemm(s.transpose_a, s.transpose_b, ni, nj, np, alpha, wide_a, ld_a, wide_b, ld_b, p ? 1.0f : beta,
                static_cast<float*>(c) + i * ldc + j, ldc);
        else
          sgemm(s.transpose_a, s.transpose_b, ni, nj, np, alpha, wide_a, ld_a, wide_b, ld_b, p ? 1.0f : 0.0f, sum, nj);
      }
      if (!direct) cpu::store_block(sum, nj, beta, element(c, s.out, i * ldc + j), ldc, s.out, ni, nj);
    }
  }
}

void by_sgemm(Sgemm sgemm, const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
              float beta, void* c, int64_t ldc) {
  if (s.in == DType::kF32)
    deep_sgemm(sgemm, s.transpose_a, s.transpose_b, s.m, s.n, s.k, alpha, static_cast<const float*>(a), lda,
               static_cast<const float*>(b), ldb, beta, static_cast<float*>(c), ldc);
  else
    wide_sgemm(sgemm, s, alpha, a, lda, b, ldb, beta, c, ldc);
}

void by_own_kernel(const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
                   void* c, int64_t ldc) {
  if (s.transpose_a || !s.transpose_b)
    return cpu::gemm_own(s.transpose_a, s.transpose_b, s.m, s.n, s.k, alpha, a, lda, s.in, b, ldb, s.in, beta, c, ldc,
                         s.out);
  // Up to 4 rows cost less than reading the weights, which goes better without a copy.
  if (s.in == DType::kBF16 && s.m > 4 && alpha == 1 && beta == 0 && cpu::amx_available() &&
      cpu::amx_gemm_fits(s.n, s.k)) {
    auto* tiles = reinterpret_cast<BF16*>(scratch((cpu::amx_gemm_scratch(s.m, s.k, omp_get_max_threads()) + 1) / 2));
    return cpu::amx_gemm(s.m, s.n, s.k, static_cast<const BF16*>(a), lda, static_cast<const BF16*>(b), ldb, c, ldc,
                         s.out, tiles);
  }
  const float* wide = static_cast<const float*>(a);
  if (s.in != DType::kF32) {
    float* to = scratch(s.m * s.k);
    cpu::widen_block(a, lda, s.in, to, s.k, s.m, s.k);
    wide = to;
    lda = s.k;
  }
  cpu::weight_gemm(s.m, s.n, s.k, alpha, wide, lda, b, ldb, s.in, beta, c, ldc, s.out);
}

void by_halves(int halves, const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
               float beta, void* c, int64_t ldc) {
  const int64_t bytes = cpu::split_gemm_scratch(halves, s.m, s.n, s.k, omp_get_max_threads());
  cpu::split_gemm(halves, s.transpose_a, s.transpose_b, s.m, s.n, s.k, alpha, static_cast<const float*>(a), lda,
                  static_cast<const float*>(b), ldb, beta, static_cast<float*>(c), ldc,
                  scratch(bytes / static_cast<int64_t>(sizeof(float))));
}

void by_f16(const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta, void* c,
            int64_t ldc) {
  const int64_t bytes = cpu::f16_gemm_scratch(s.m, s.n, s.k, omp_get_max_threads());
  cpu::f16_gemm(s.transpose_a, s.transpose_b, s.m, s.n, s.k, alpha, static_cast<const float*>(a), lda,
                static_cast<const float*>(b), ldb, beta, static_cast<float*>(c), ldc,
                scratch(bytes / static_cast<int64_t>(sizeof(float))));
}

// C = beta * C
void scale(const GemmShape& s, float beta, void* c, int64_t ldc) {
  const std::unique_ptr<float[]> zero = std::make_unique<float[]>(static_cast<size_t>(s.n));
  cpu::store_block(zero.get(), 0, beta, c, ldc, s.out, s.m, s.n);
}

void check_arguments(const GemmShape& s, int64_t lda, int64_t ldb, int64_t ldc) {
  check(s.m >= 0 && s.n >= 0 && s.k >= 0, "gemm ", s, ": a size is negative");
  check(is_float(s.in) && (s.out == s.in || s.out == DType::kF32), "gemm ", s, ": ", s.in, " operands give ", s.in,
        " or f32");
  check(lda >= (s.transpose_a ? s.m : s.k), "gemm ", s, ": lda is ", lda, ", a row of A has ",
        s.transpose_a ? s.m : s.k);
  check(ldb >= (s.transpose_b ? s.k : s.n), "gemm ", s, ": ldb is ", ldb, ", a row of B has ",
        s.transpose_b ? s.k : s.n);
  check(ldc >= s.n, "gemm ", s, ": ldc is ", ldc, ", a row of C has ", s.n);
}

bool fits_int(const GemmShape& s, int64_t lda, int64_t ldb, int64_t ldc) {
  return std::max({s.m, s.n, s.k, lda, ldb, ldc}) <= std::numeric_limits<int>::max();
}

void run(GemmBackend backend, const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
         float beta, void* c, int64_t ldc) {
  check_arguments(s, lda, ldb, ldc);
  if (s.m == 0 || s.n == 0) return;
  if (s.k == 0) return scale(s, beta, c, ldc);
  switch (backend) {
    case GemmBackend::kOpenBlas:
      if (fits_int(s, lda, ldb, ldc)) return by_sgemm(cpu::openblas_sgemm, s, alpha, a, lda, b, ldb, beta, c, ldc);
      [[fallthrough]];
    case GemmBackend::kOneDnnSgemm: return by_sgemm(cpu::onednn_sgemm, s, alpha, a, lda, b, ldb, beta, c, ldc);
    case GemmBackend::kOneDnnMatmul:
      if (cpu::onednn_matmul(s, gemm_threads(), alpha, a, lda, b, ldb, beta, c, ldc)) return;
      return by_sgemm(cpu::onednn_sgemm, s, alpha, a, lda, b, ldb, beta, c, ldc);
    case GemmBackend::kOwn: return by_own_kernel(s, alpha, a, lda, b, ldb, beta, c, ldc);
    case GemmBackend::kBf16x3: return by_halves(2, s, alpha, a, lda, b, ldb, beta, c, ldc);
    case GemmBackend::kBf16: return by_halves(1, s, alpha, a, lda, b, ldb, beta, c, ldc);
    case GemmBackend::kF16: return by_f16(s, alpha, a, lda, b, ldb, beta, c, ldc);
  }
}

}  // namespace

std::string_view name_of(GemmBackend backend) {
  switch (backend) {
    case GemmBackend::kOwn: return "own";
    case GemmBackend::kOneDnnSgemm: return "onednn_sgemm";
    case GemmBackend::kOneDnnMatmul: return "onednn_matmul";
    case GemmBackend::kOpenBlas: return "openblas";
    case GemmBackend::kBf16x3: return "bf16x3";
    case GemmBackend::kBf16: return "bf16";
    case GemmBackend::kF16: return "f16";
  }
  return "?";
}

std::string_view name_of(MatmulPrecision precision) {
  switch (precision) {
    case MatmulPrecision::kF32: return "f32";
    case MatmulPrecision::kBf16x3: return "bf16x3";
    case MatmulPrecision::kBf16: return "bf16";
    case MatmulPrecision::kF16: return "f16";
    case MatmulPrecision::kTf32: return "tf32";
  }
  return "?";
}

bool available(MatmulPrecision precision, DeviceKind device) {
  if (device != DeviceKind::kCpu) return precision == MatmulPrecision::kF32 || precision == MatmulPrecision::kTf32;
  switch (precision) {
    case MatmulPrecision::kF32: return true;
    case MatmulPrecision::kBf16x3: case MatmulPrecision::kBf16: return cpu::amx_available();
    case MatmulPrecision::kF16: return cpu::f16_available();
    case MatmulPrecision::kTf32: return false;
  }
  return false;
}

std::string_view hardware_for(MatmulPrecision precision) {
  switch (precision) {
    case MatmulPrecision::kF32: return "";
    case MatmulPrecision::kBf16x3: case MatmulPrecision::kBf16: return "AMX";
    case MatmulPrecision::kF16: return "AVX512-FP16";
    case MatmulPrecision::kTf32: return "a CUDA device";
  }
  return "?";
}

std::ostream& operator<<(std::ostream& out, const GemmShape& s) {
  return out << (s.transpose_a ? 't' : 'n') << (s.transpose_b ? 't' : 'n') << ' ' << s.in << "->" << s.out << ' '
             << s.m << 'x' << s.n << 'x' << s.k;
}

int gemm_threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

bool gemm_available(GemmBackend backend, const GemmShape& shape) {
  switch (backend) {
    case GemmBackend::kOwn: case GemmBackend::kOneDnnSgemm: return true;
    case GemmBackend::kOneDnnMatmul: return cpu::onednn_matmul_available(shape.in);
    case GemmBackend::kOpenBlas: return cpu::openblas_available();
    case GemmBackend::kBf16x3: case GemmBackend::kBf16: return shape.in == DType::kF32 && cpu::amx_available();
    case GemmBackend::kF16: return shape.in == DType::kF32 && cpu::f16_available();
  }
  return false;
}

void gemm(const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
          void* c, int64_t ldc) {
  run(gemm_table().choose(shape, gemm_threads()), shape, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gemm(Device device, const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb,
          float beta, void* c, int64_t ldc) {
  if (device.kind == DeviceKind::kCpu) [[likely]]
    return gemm(shape, alpha, a, lda, b, ldb, beta, c, ldc);
  require_selected(device);
  cuda::gemm(shape, alpha, a, lda, b, ldb, beta, c, ldc, cuda::products_in_force(shape.in));
}

cuda::F32Products cuda::products_in_force(DType in) {
  const MatmulPrecision precision = gemm_table().precision();
  if (in != DType::kF32 || precision == MatmulPrecision::kF32) return cuda::F32Products::kExact;
  check<ConfigError>(precision == MatmulPrecision::kTf32, "products of f32 in the precision ", name_of(precision),
                     " are computed on the cpu only; use f32, or tf32 on a CUDA device");
  return cuda::F32Products::kTf32;
}

void gemm_with(GemmBackend backend, const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b,
               int64_t ldb, float beta, void* c, int64_t ldc) {
  check<ConfigError>(gemm_available(backend, shape), "gemm ", shape, ": ", name_of(backend),
                     " is not available on this machine");
  run(backend, shape, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace trireme
