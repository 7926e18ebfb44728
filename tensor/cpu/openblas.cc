#include "tensor/cpu/openblas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <initializer_list>

#include "tensor/cpu/isa.h"

namespace trireme::cpu {
namespace {

using CblasSgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                            const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;

CblasSgemm load_openblas() {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  const bool chosen = std::getenv(kVariable);
  if (!chosen && isa() == Isa::kAvx512) setenv(kVariable, "SkylakeX", 1);
  if (!chosen && isa() == Isa::kAvx2) setenv(kVariable, "Haswell", 1);
  void* library = nullptr;
  for (const char* path : {"/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so.0",
                           "/usr/lib/aarch64-linux-gnu/openblas-openmp/libopenblas.so.0",
                           "/usr/lib64/libopenblaso.so.0"})
    if (!library) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!chosen) unsetenv(kVariable);
  return library ? reinterpret_cast<CblasSgemm>(dlsym(library, "cblas_sgemm")) : nullptr;
}

CblasSgemm cblas_sgemm() {
  static const CblasSgemm function = load_openblas();  // never closed
  return function;
}

}  // namespace

bool openblas_available() { return cblas_sgemm(); }

void openblas_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                    int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  cblas_sgemm()(kRowMajor, transpose_a ? kTranspose : kNoTranspose, transpose_b ? kTranspose : kNoTranspose,
                static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), alpha, a, static_cast<int>(lda), b,
                static_cast<int>(ldb), beta, c, static_cast<int>(ldc));
}

}  // namespace trireme::cpu
