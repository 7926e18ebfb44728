// What a program that computes on the emulated device needs beside the kernels: products, which are the processor's, and
// one device memory for both emulations.
#include "cuda_runtime_api.h"
#include "tensor/cuda/gemm.h"
#include "warp_emulation.h"

namespace trireme::cuda {
namespace {

void device_access(bool begins) {
  static std::unique_ptr<cuda_emulation::DeviceAccess> access;
  if (begins)
    access = std::make_unique<cuda_emulation::DeviceAccess>();
  else
    access.reset();
}
[[maybe_unused]] const bool kJoined = (Emulation::get().device_access = device_access, true);

}  // namespace

void gemm(const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
          void* c, int64_t ldc, F32Products) {
  const cuda_emulation::DeviceAccess access;
  trireme::gemm(shape, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace trireme::cuda
