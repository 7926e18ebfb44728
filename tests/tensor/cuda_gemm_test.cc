// Products by cuBLASLt against the CPU's, on a device.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/cuda/cublas_lt.h"
#include "tensor/cuda/gemm.h"
#include "tests/tensor/kernel_testing.h"
#include "tests/tensor/op_testing.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

int64_t bytes_of(const Tensor& t) { return t.numel() * static_cast<int64_t>(size_of(t.dtype())); }

struct Operands {
  GemmShape shape;
  Tensor a, b;
  int64_t lda, ldb;

  Operands(const GemmShape& s, int64_t slack = 0) : shape(s) {
    lda = (s.transpose_a ? s.m : s.k) + slack;
    ldb = (s.transpose_b ? s.k : s.n) + slack;
    a = random({s.transpose_a ? s.k : s.m, lda}, s.in, 1);
    b = random({s.transpose_b ? s.n : s.k, ldb}, s.in, 2);
  }
  // The CPU's product, with C as it was before; in f32.
  Tensor product(const Tensor& before, float alpha = 1, float beta = 0) const {
    GemmShape s = shape;
    s.in = s.out = DType::kF32;
    const Tensor wide_a = cast(a, DType::kF32), wide_b = cast(b, DType::kF32);
    Tensor c = empty(before.shape(), DType::kF32);
    std::memcpy(c.raw(), cast(before, DType::kF32).raw(), c.num_bytes());
    gemm(s, alpha, wide_a.raw(), lda, wide_b.raw(), ldb, beta, c.raw(), before.dim(1));
    return c;
  }
};

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) {
  const double c = std::sqrt(2 / M_PI), t = std::tanh(c * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}

TRIREME_KERNEL_TESTS(CudaGemmTest);

// The rounding of a sum of k products of standard normals, of which the largest are several times sqrt(k).
double product_tolerance(DType out, int64_t k) {
  return tolerance(out, k) * std::sqrt(static_cast<double>(k));
}

TEST_P(CudaGemmTest, MatchesTheCpuAtOddAndRealSizes) {
  struct Size {
    int64_t m, n, k, slack;
  };
  for (const Size& size : {Size{1, 1, 1, 0}, Size{5, 7, 3, 1}, Size{33, 65, 127, 3}, Size{128, 768, 768, 0},
                           Size{517, 1024, 4096, 8}, Size{1, 4096, 4096, 0}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const DType out : {GetParam(), DType::kF32}) {
          const GemmShape s{transpose_a, transpose_b, size.m, size.n, size.k, GetParam(), out};
          SCOPED_TRACE(text(s));
          const Operands o(s, size.slack);
          const Tensor before = random({s.m, s.n + size.slack}, out, 3);
          const DeviceBuffer a(o.a), b(o.b), c(before);
          for (const float beta : {1.0f, 0.0f}) {
            const Tensor was = c.fetch(before.shape(), out);
            cuda::gemm(s, 0.5f, a.as(), o.lda, b.as(), o.ldb, beta, c.as(), before.dim(1));
            expect_near(c.fetch(before.shape(), out), to_doubles(o.product(was, 0.5f, beta)),
                        product_tolerance(out, s.k), "C");
          }
        }
}

TEST_P(CudaGemmTest, DoesNotReadWhatItOverwrites) {
  const GemmShape s{false, true, 40, 48, 64, GetParam(), GetParam()};
  const Operands o(s);
  const DeviceBuffer a(o.a), b(o.b), c(s.m * s.n * static_cast<int64_t>(size_of(s.out)));  // NaN
  cuda::gemm(s, 1, a.as(), o.lda, b.as(), o.ldb, 0, c.as(), s.n);
  expect_near(c.fetch({s.m, s.n}, s.out), to_doubles(o.product(zeros({s.m, s.n}, s.out))),
              product_tolerance(s.out, s.k), "C");
}

TEST_P(CudaGemmTest, AnEmptySumScalesC) {
  const Tensor before = random({6, 9}, GetParam(), 3);
  const DeviceBuffer c(before);
  const GemmShape s{false, false, 6, 7, 0, GetParam(), GetParam()};
  cuda::gemm(s, 1, nullptr, 1, nullptr, 7, 0.5f, c.as(), 9);
  std::vector<double> want = to_doubles(before);
  for (size_t i = 0; i < want.size(); ++i)
    if (i % 9 < 7) want[i] *= 0.5;
  expect_near(c.fetch(before.shape(), GetParam()), want, tolerance(GetParam()), "C");
}

TEST_P(CudaGemmTest, RepeatsItsBits) {
  const GemmShape s{true, false,      96,         768,
                    4096, GetParam(), DType::kF32};  // few blocks: a sum that may be split
  const Operands o(s);
  const DeviceBuffer a(o.a), b(o.b), c(s.m * s.n * 4);
  cuda::gemm(s, 1, a.as(), o.lda, b.as(), o.ldb, 0, c.as(), s.n);
  const Tensor first = c.fetch({s.m, s.n}, s.out);
  for (int i = 0; i < 5; ++i) {
    cuda::gemm(s, 1, a.as(), o.lda, b.as(), o.ldb, 0, c.as(), s.n);
    expect_equal(c.fetch({s.m, s.n}, s.out), first, "C");
  }
}

TEST_P(CudaGemmTest, AddsABiasAndAppliesGelu) {
  const GemmShape s{false, true, 72, 128, 64, GetParam(), GetParam()};
  const Operands o(s);
  const Tensor bias = random({s.n}, s.out, 5), like = zeros({s.m, s.n}, s.out);
  std::vector<double> x = to_doubles(o.product(like));
  const std::vector<double> b_values = to_doubles(bias);
  for (size_t i = 0; i < x.size(); ++i) x[i] += b_values[i % static_cast<size_t>(s.n)];
  std::vector<double> y = x;
  for (double& v : y) v = gelu(v);
  const DeviceBuffer a(o.a), b(o.b), v(bias), c(bytes_of(like)), saved(bytes_of(like));
  const double tol = product_tolerance(s.out, s.k);
  cuda::gemm_bias(s, a.as(), o.lda, b.as(), o.ldb, v.as(), c.as(), s.n);
  expect_near(c.fetch(like.shape(), s.out), x, tol, "with bias");
  cuda::gemm_bias_gelu(s, a.as(), o.lda, b.as(), o.ldb, v.as(), saved.as(), s.n, c.as(), s.n);
  expect_near(c.fetch(like.shape(), s.out), y, tol, "gelu");
  expect_near(saved.fetch(like.shape(), s.out), x, tol, "saved");
  cuda::gemm_bias_gelu(s, a.as(), o.lda, b.as(), o.ldb, v.as(), nullptr, 0, c.as(), s.n);
  expect_near(c.fetch(like.shape(), s.out), y, tol, "gelu, nothing saved");
}

TEST_P(CudaGemmTest, GoesBackThroughGelu) {
  const GemmShape s{false, false, 72, 128, 64, GetParam(), GetParam()};
  const Operands o(s);
  const Tensor saved = random({s.m, s.n}, s.out, 6), like = zeros({s.m, s.n}, s.out);
  const std::vector<double> x = to_doubles(saved);
  std::vector<double> dx = to_doubles(o.product(like)), db(static_cast<size_t>(s.n));
  for (size_t i = 0; i < dx.size(); ++i) {
    dx[i] *= gelu_slope(x[i]);
    db[i % db.size()] += dx[i];
  }
  const DeviceBuffer a(o.a), b(o.b), pre(saved), c(bytes_of(like)),
      sums(s.n * static_cast<int64_t>(size_of(s.out)));
  cuda::gemm_gelu_backward(s, a.as(), o.lda, b.as(), o.ldb, pre.as(), s.n, sums.as(), c.as(), s.n);
  const double tol = product_tolerance(s.out, s.k);
  expect_near(c.fetch(like.shape(), s.out), dx, tol, "dx");
  expect_near(sums.fetch({s.n}, s.out), db, tol * std::sqrt(static_cast<double>(s.m)), "db");
}

TEST_P(CudaGemmTest, SumsAnOperandBesideTheProduct) {
  for (const bool of_a : {true, false}) {
    const GemmShape s{true, false, 128, 64, 256, GetParam(), GetParam()};
    const Operands o(s);
    const Tensor like = zeros({s.m, s.n}, s.out);
    const int64_t count = of_a ? s.m : s.n;
    std::vector<double> want(static_cast<size_t>(count));
    const std::vector<double> from = to_doubles(of_a ? o.a : o.b);  // both stored [k, count]
    for (size_t i = 0; i < from.size(); ++i) want[i % want.size()] += from[i];
    const DeviceBuffer a(o.a), b(o.b), c(bytes_of(like)), sums(count * static_cast<int64_t>(size_of(s.out)));
    cuda::gemm_sums(s, a.as(), o.lda, b.as(), o.ldb, 0, c.as(), s.n,
                    of_a ? cuda::SumsOf::kA : cuda::SumsOf::kB, sums.as());
    expect_near(c.fetch(like.shape(), s.out), to_doubles(o.product(like)), product_tolerance(s.out, s.k),
                "C");
    expect_near(sums.fetch({count}, s.out), want, product_tolerance(s.out, s.k), "sums");
  }
}

TEST_P(CudaGemmTest, SaysWhatDoesNotFit) {
  const GemmShape s{false, false, 4, 8, 16, GetParam(), GetParam()};
  const auto call = [&](int64_t lda, int64_t ldc) {
    cuda::gemm(s, 1, nullptr, lda, nullptr, 8, 0, nullptr, ldc);
  };
  EXPECT_CONTAINS(message_of<ShapeError>([&] { call(15, 8); }), "lda is 15, a row of A has 16");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { call(16, 7); }), "ldc is 7, a row of C has 8");
  EXPECT_CONTAINS(message_of<ShapeError>([&] {
                    cuda::gemm_gelu_backward(s, nullptr, 16, nullptr, 8, nullptr, 9, nullptr, nullptr, 8);
                  }),
                  "the saved input (9)");
}

// 1, 1.5, -2 and the like in e4m3: exact values, so that the product is.
TEST_P(CudaGemmTest, MultipliesEightBitFloats) {
  cudaDeviceProp device{};
  cuda::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  if (device.major * 10 + device.minor < 89) GTEST_SKIP() << "needs compute capability 8.9";
  const int64_t m = 48, n = 32, k = 64;
  const uint8_t codes[] = {0x38, 0x3c, 0xc0, 0x30, 0x00};
  const double values[] = {1, 1.5, -2, 0.5, 0};
  Tensor a = empty({m, k}, DType::kU8), b = empty({n, k}, DType::kU8);
  const auto code_of = [](int64_t i, int64_t j, int64_t seed) { return (i * 7 + j * 3 + i * j + seed) % 5; };
  for (int64_t i = 0; i < m * k; ++i) a.data<uint8_t>()[i] = codes[code_of(i / k, i % k, 1)];
  for (int64_t i = 0; i < n * k; ++i) b.data<uint8_t>()[i] = codes[code_of(i / k, i % k, 2)];
  std::vector<double> want(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t p = 0; p < k; ++p)
        want[static_cast<size_t>(i * n + j)] +=
            0.25 * 8 * values[code_of(i, p, 1)] * values[code_of(j, p, 2)];
  const DeviceBuffer on_a(a), on_b(b), scale_a(tensor_of<float>({0.25f}, {1})),
      scale_b(tensor_of<float>({8.0f}, {1})), c(m * n * static_cast<int64_t>(size_of(GetParam())));
  cuda::gemm_fp8(m, n, k, {on_a.as(), k, Fp8::kE4M3, scale_a.as<float>()},
                 {on_b.as(), k, Fp8::kE4M3, scale_b.as<float>()}, 0, c.as(), n, GetParam());
  expect_near(c.fetch({m, n}, GetParam()), want, tolerance(GetParam()) * 16, "C");
}

// Needs no device.
TEST(CublasLt, HasWhatIsCalled) { EXPECT_STREQ(cuda::cublas_lt().status_name(CUBLAS_STATUS_SUCCESS), "CUBLAS_STATUS_SUCCESS"); }

}  // namespace
}  // namespace trireme
