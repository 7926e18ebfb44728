// What a program that computes on the emulated device needs beside the kernels: products, which are the processor's, and
// one device memory for both emulations.
#include <bit>
#include <cmath>
#include <vector>

#include "cuda_runtime_api.h"
#include "tensor/cuda/gemm.h"
#include "tensor/threads.h"
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

// For a product by the processor: device memory is open to the calling thread alone, so it works alone.
class ProductAccess {
 public:
  ProductAccess() { set_num_threads(1); }
  ~ProductAccess() { set_num_threads(threads_before_); }
  ProductAccess(const ProductAccess&) = delete;

 private:
  const int threads_before_ = num_threads();
  cuda_emulation::DeviceAccess access_;
};

float value_at(const void* values, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(values)[i];
  return dtype == DType::kBF16 ? to_f32(static_cast<const BF16*>(values)[i]) : to_f32(static_cast<const F16*>(values)[i]);
}
void put(void* values, DType dtype, int64_t i, float value) {
  if (dtype == DType::kF32) static_cast<float*>(values)[i] = value;
  else if (dtype == DType::kBF16) static_cast<BF16*>(values)[i] = to_bf16(value);
  else static_cast<F16*>(values)[i] = to_f16(value);
}

// An operand as the product takes it: for kTf32 with 10 bits of mantissa, to the nearest.
class Operand {
 public:
  Operand(const void* data, int64_t ld, int64_t rows, int64_t columns, DType dtype, F32Products products) : data_(data) {
    if (dtype != DType::kF32 || products == F32Products::kExact || rows == 0) return;
    const float* in = static_cast<const float*>(data);
    rounded_.resize(static_cast<size_t>((rows - 1) * ld + columns));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        rounded_[static_cast<size_t>(r * ld + c)] =
            std::bit_cast<float>((std::bit_cast<uint32_t>(in[r * ld + c]) + 0x1000u) & 0xffffe000u);
    data_ = rounded_.data();
  }
  const void* data() const { return data_; }

 private:
  const void* data_;
  std::vector<float> rounded_;
};

void product(const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta, void* c,
             int64_t ldc, F32Products products) {
  const Operand of_a(a, lda, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.in, products),
      of_b(b, ldb, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.in, products);
  trireme::gemm(s, alpha, of_a.data(), lda, of_b.data(), ldb, beta, c, ldc);
}

// Calls fn(row, column, element of the product in f32), if such products are to be had.
template <class Fn>
bool with_product(GemmShape shape, const void* a, int64_t lda, const void* b, int64_t ldb, F32Products products,
                  const Fn& fn) {
  if (!cuda_emulation::settings().fused_products) return false;
  const ProductAccess access;
  shape.out = DType::kF32;
  std::vector<float> values(static_cast<size_t>(shape.m * shape.n));
  product(shape, 1, a, lda, b, ldb, 0, values.data(), shape.n, products);
  for (int64_t i = 0; i < shape.m; ++i)
    for (int64_t j = 0; j < shape.n; ++j) fn(i, j, values[static_cast<size_t>(i * shape.n + j)]);
  return true;
}

constexpr float kSlope = 0.7978845608028654f, kCubic = 0.044715f;  // sqrt(2 / pi)
float gelu_of(float x) { return 0.5f * x * (1 + std::tanh(kSlope * (x + kCubic * x * x * x))); }
float gelu_slope(float x) {
  const float t = std::tanh(kSlope * (x + kCubic * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kSlope * (1 + 3 * kCubic * x * x);
}

}  // namespace

bool gemm_bias(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, const void* bias, void* c,
               int64_t ldc, F32Products products) {
  return with_product(s, a, lda, b, ldb, products, [&](int64_t i, int64_t j, float x) {
    put(c, s.out, i * ldc + j, x + value_at(bias, s.out, j));
  });
}

bool gemm_bias_gelu(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, const void* bias,
                    void* saved, int64_t ld_saved, void* c, int64_t ldc, F32Products products) {
  return with_product(s, a, lda, b, ldb, products, [&](int64_t i, int64_t j, float x) {
    if (bias) x += value_at(bias, s.out, j);
    if (saved) put(saved, s.out, i * ld_saved + j, x);
    put(c, s.out, i * ldc + j, gelu_of(x));
  });
}

bool gemm_gelu_backward(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, const void* saved,
                        int64_t ld_saved, void* bias_grad, void* c, int64_t ldc, F32Products products) {
  if (bias_grad) return false;
  return with_product(s, a, lda, b, ldb, products, [&](int64_t i, int64_t j, float dy) {
    put(c, s.out, i * ldc + j, dy * gelu_slope(value_at(saved, s.out, i * ld_saved + j)));
  });
}

void gemm(const GemmShape& shape, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
          void* c, int64_t ldc, F32Products products) {
  const ProductAccess access;
  product(shape, alpha, a, lda, b, ldb, beta, c, ldc, products);
}

void gemm_fp8(int64_t m, int64_t n, int64_t k, const Fp8Matrix& a, const Fp8Matrix& b, float beta, void* c, int64_t ldc,
              DType out) {
  const ProductAccess access;
  const auto widened = [k](const Fp8Matrix& x, int64_t rows) {
    std::vector<float> wide(static_cast<size_t>(rows * k));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < k; ++i)
        wide[r * k + i] = from_fp8(static_cast<const uint8_t*>(x.data)[r * x.ld + i], x.type) * *x.scale;
    return wide;
  };
  const std::vector<float> wide_a = widened(a, m), wide_b = widened(b, n);
  std::vector<float> product(static_cast<size_t>(m * n));
  trireme::gemm({false, true, m, n, k, DType::kF32, DType::kF32}, 1, wide_a.data(), k, wide_b.data(), k, 0, product.data(), n);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t i = 0; i < n; ++i) {
      const float v = product[r * n + i];
      if (out == DType::kF32) {
        float& at = static_cast<float*>(c)[r * ldc + i];
        at = beta == 0 ? v : beta * at + v;
      } else if (out == DType::kBF16) {
        static_cast<BF16*>(c)[r * ldc + i] = to_bf16(v);
      } else {
        static_cast<F16*>(c)[r * ldc + i] = to_f16(v);
      }
    }
}

}  // namespace trireme::cuda
