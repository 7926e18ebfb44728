#include "tensor/cuda/gemm.h"
#include "tensor/cuda/warp.cuh"

namespace trireme::cuda {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(int64_t count, int64_t n, float beta, T* c, int64_t ldc) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  T& element = c[i / n * ldc + i % n];
  element = narrow<T>(beta == 0 ? 0.0f : beta * widen(element));
}

}  // namespace

void scale_matrix(int64_t m, int64_t n, float beta, void* c, int64_t ldc, DType dtype) {
  if (m * n == 0) return;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_blocks("scale_matrix", scale_kernel<T>, divide_up(m * n, kThreads), kThreads, 0, m * n, n, beta,
                  static_cast<T*>(c), ldc);
  });
}

}  // namespace trireme::cuda
