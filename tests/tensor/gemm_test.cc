#include "tensor/gemm.h"

#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/cpu/amx_gemm.h"
#include "tensor/cpu/gemm.h"
#include "tensor/cpu/weight_gemm.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One product with leading dimensions beyond the rows. Elements outside the matrices are NaN in A and B.
struct Case {
  GemmShape shape;
  float alpha = 1, beta = 0;
  int64_t extra = 0;  // by which leading dimensions exceed a row
  Tensor a, b, c;
  std::vector<double> want;

  Case(const GemmShape& s, float alpha, float beta, int64_t extra, uint64_t seed)
      : shape(s), alpha(alpha), beta(beta), extra(extra) {
    a = padded(s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.in, seed);
    b = padded(s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.in, seed + 1);
    c = padded(s.m, s.n, s.out, seed + 2);
    const auto av = to_doubles(a), bv = to_doubles(b), cv = to_doubles(c);
    want = cv;
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < s.k; ++p)
          sum += av[s.transpose_a ? p * lda() + i : i * lda() + p] * bv[s.transpose_b ? j * ldb() + p : p * ldb() + j];
        want[i * ldc() + j] = alpha * sum + (beta == 0 ? 0 : beta * cv[i * ldc() + j]);
      }
    if (beta == 0)  // must not be read
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) set(c, i * ldc() + j, kNaN);
  }
  int64_t lda() const { return a.dim(1); }
  int64_t ldb() const { return b.dim(1); }
  int64_t ldc() const { return c.dim(1); }

  Tensor run(GemmBackend backend) const {
    Tensor result = empty_like(c);
    copy(c, result);
    gemm_with(backend, shape, alpha, a.raw(), lda(), b.raw(), ldb(), beta, result.raw(), ldc());
    return result;
  }
  // The products of standard normals add up to sums of size sqrt(k), and so the f32 roundings are of that size.
  double allowed() const {
    const double size = std::sqrt(static_cast<double>(shape.k));
    return tolerance(shape.out) + std::abs(alpha) * size * 0x1p-24 * (4 + size);
  }

 private:
  static void set(const Tensor& t, int64_t i, float v) {
    if (t.dtype() == DType::kF32) t.data<float>()[i] = v;
    if (t.dtype() == DType::kBF16) t.data<BF16>()[i] = to_bf16(v);
    if (t.dtype() == DType::kF16) t.data<F16>()[i] = to_f16(v);
  }
  Tensor padded(int64_t rows, int64_t columns, DType dtype, uint64_t seed) const {
    Tensor t = random({rows, columns + extra}, dtype, seed);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = columns; j < columns + extra; ++j) set(t, i * (columns + extra) + j, kNaN);
    return t;
  }
};

std::vector<std::pair<DType, DType>> type_pairs() {
  return {{DType::kF32, DType::kF32}, {DType::kBF16, DType::kBF16}, {DType::kBF16, DType::kF32},
          {DType::kF16, DType::kF16}, {DType::kF16, DType::kF32}};
}

class GemmTest : public ::testing::TestWithParam<GemmBackend> {
 protected:
  void check_sizes(std::initializer_list<std::array<int64_t, 3>> sizes) {
    uint64_t seed = 1;
    for (auto [in, out] : type_pairs())
      for (int op = 0; op < 4; ++op)
        for (auto [m, n, k] : sizes) {
          const GemmShape shape{(op & 1) != 0, (op & 2) != 0, m, n, k, in, out};
          if (!gemm_available(GetParam(), shape)) continue;
          const auto [alpha, beta, extra] = std::array<std::tuple<float, float, int64_t>, 4>{
              {{1, 0, 0}, {1, 1, 5}, {-0.5f, 0, 3}, {2, -0.75f, 1}}}[seed % 4];
          const Case c(shape, alpha, beta, extra, seed);
          expect_near(c.run(GetParam()), c.want, c.allowed(),
                      text(shape, " alpha ", alpha, " beta ", beta, " extra ", extra));
          ++seed;
        }
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, GemmTest, ::testing::ValuesIn(kGemmBackends),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(GemmTest, MatchesDoubleReferenceOnOddShapes) {
  if (!gemm_available(GetParam(), {})) GTEST_SKIP() << name_of(GetParam()) << " is not on this machine";
  check_sizes({{1, 1, 1}, {1, 17, 15}, {2, 3, 16}, {3, 5, 7}, {5, 16, 33}, {7, 31, 17}, {16, 64, 64}, {13, 97, 63}});
}

TEST_P(GemmTest, MatchesDoubleReferenceOnShapesThatNeedBlocksAndThreads) {
  if (!gemm_available(GetParam(), {})) GTEST_SKIP() << name_of(GetParam()) << " is not on this machine";
  check_sizes({{1, 129, 257}, {33, 67, 513}, {67, 130, 96}, {101, 257, 31}});
}

// Several chunks of the deep f32 product, several blocks of the widened one.
TEST_P(GemmTest, SumsLongRowsInChunks) {
  if (!gemm_available(GetParam(), {})) GTEST_SKIP() << name_of(GetParam()) << " is not on this machine";
  check_sizes({{2, 3, 6401}, {1030, 2, 24}, {2, 1033, 24}});
  const Case head({false, false, 2, 3, 50257}, 1, 1, 0, 11);
  expect_near(head.run(GetParam()), head.want, head.allowed(), "an input gradient of a language model's head");
}

TEST_P(GemmTest, NoTermsScaleC) {
  if (!gemm_available(GetParam(), {})) GTEST_SKIP() << name_of(GetParam()) << " is not on this machine";
  std::vector<float> c = {1, 2, 9, 3, 4, 9};
  gemm_with(GetParam(), {false, false, 2, 2, 0}, 1, nullptr, 0, nullptr, 2, 0.5f, c.data(), 3);
  EXPECT_EQ(c, (std::vector<float>{0.5f, 1, 9, 1.5f, 2, 9}));
  c[0] = kNaN;
  gemm_with(GetParam(), {false, false, 2, 2, 0}, 1, nullptr, 0, nullptr, 2, 0, c.data(), 3);
  EXPECT_EQ(c, (std::vector<float>{0, 0, 9, 0, 0, 9}));
  gemm_with(GetParam(), {false, true, 0, 2, 5}, 1, nullptr, 5, nullptr, 5, 0, c.data(), 3);
  gemm_with(GetParam(), {true, false, 2, 0, 5}, 1, nullptr, 2, nullptr, 0, 0, c.data(), 3);
  EXPECT_EQ(c, (std::vector<float>{0, 0, 9, 0, 0, 9}));
}

TEST_P(GemmTest, RepeatsItsBits) {
  for (auto [in, out] : type_pairs()) {
    const Case c({false, true, 37, 65, 300, in, out}, 1, 1, 2, 77);
    if (gemm_available(GetParam(), c.shape)) expect_equal(c.run(GetParam()), c.run(GetParam()));
  }
}

// Each instruction set that this processor has, for each pair of types.
TEST(OwnGemm, IsRightOnEveryInstructionSet) {
  using Kernel = decltype(&cpu::plain::gemm_own);
  using WeightKernel = decltype(&cpu::plain::weight_gemm);
  std::vector<std::pair<Kernel, WeightKernel>> kernels = {{&cpu::plain::gemm_own, &cpu::plain::weight_gemm}};
  if (cpu::isa() >= cpu::Isa::kAvx2) kernels.push_back({&cpu::avx2::gemm_own, &cpu::avx2::weight_gemm});
  if (cpu::isa() >= cpu::Isa::kAvx512) kernels.push_back({&cpu::avx512::gemm_own, &cpu::avx512::weight_gemm});
  for (auto [kernel, weight_kernel] : kernels)
    for (auto [in, out] : type_pairs())
      for (int op = 0; op < 4; ++op)
        for (auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 3}, {3, 17, 15}, {6, 50, 33}, {7, 8, 16}, {9, 33, 40},
                               {14, 70, 1030}, {70, 29, 2100}}) {
          const GemmShape s{(op & 1) != 0, (op & 2) != 0, m, n, k, in, out};
          const Case c(s, 1.5f, 1, 1, 5);
          Tensor got = empty_like(c.c);
          copy(c.c, got);
          if (op == 2) {
            const Tensor a = in == DType::kF32 ? c.a : cast(c.a, DType::kF32);
            weight_kernel(m, n, k, 1.5f, a.data<float>(), c.lda(), c.b.raw(), c.ldb(), in, 1, got.raw(), c.ldc(), out);
          } else {
            kernel(s.transpose_a, s.transpose_b, m, n, k, 1.5f, c.a.raw(), c.lda(), in, c.b.raw(), c.ldb(), in, 1,
                   got.raw(), c.ldc(), out);
          }
          expect_near(got, c.want, c.allowed(), text(s));
        }
}

// A token's logits must not depend on which other requests it is batched with.
TEST(OwnGemm, GivesARowTheSameBitsInAnyBatchAndOnAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (bool transpose_b : {false, true})
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const int64_t m = 75, n = 131, k = transpose_b ? 1184 : 777;  // 1184: whole tiles of AMX, more than one panel
      const Tensor a = random({m, k}, dtype, 3);
      const Tensor b = transpose_b ? random({n, k}, dtype, 4) : random({k, n}, dtype, 4);
      const auto run = [&](int64_t first, int64_t rows, int thread_count) {
        omp_set_num_threads(thread_count);
        Tensor c = empty({rows, n}, dtype);
        gemm_with(GemmBackend::kOwn, {false, transpose_b, rows, n, k, dtype, dtype}, 1, a.rows(first, m).raw(), k,
                  b.raw(), b.dim(1), 0, c.raw(), n);
        omp_set_num_threads(threads);
        return c;
      };
      const Tensor whole = run(0, m, 1);
      expect_equal(run(0, m, 2), whole, "two threads");
      expect_equal(run(0, m, 3), whole, "three threads");
      const bool amx = transpose_b && dtype == DType::kBF16 && cpu::amx_available();
      for (int64_t rows : {1, 2, 3, 5, 6, 7, 8, 9, 16, 31, 40, 65}) {
        if (amx && rows <= 4) continue;  // another kernel, with other roundings
        expect_equal(run(4, rows, 2), whole.rows(4, 4 + rows), text(rows, " rows of the batch"));
      }
    }
}

// Columns and rows that are not whole tiles; long sums; and C in both types.
TEST(AmxGemm, MatchesDoubleReference) {
  if (!cpu::amx_available()) GTEST_SKIP() << "this processor has no AMX";
  for (DType out : {DType::kBF16, DType::kF32})
    for (int64_t m : {1, 15, 16, 17, 32, 33, 50})
      for (int64_t n : {32, 33, 47, 64, 100})
        for (int64_t k : {32, 96, 1056}) {
          ASSERT_TRUE(cpu::amx_gemm_fits(n, k));
          const Case c({false, true, m, n, k, DType::kBF16, out}, 1, 0, 3, static_cast<uint64_t>(m + n + k));
          expect_near(c.run(GemmBackend::kOwn), c.want, c.allowed(), text(c.shape));
        }
  EXPECT_FALSE(cpu::amx_gemm_fits(31, 32));
  EXPECT_FALSE(cpu::amx_gemm_fits(32, 48));
}

// Rows that are cut to fit the second cache level, and columns that several threads take in turn.
TEST(AmxGemm, ManyRowsGiveTheBitsOfFew) {
  if (!cpu::amx_available()) GTEST_SKIP() << "this processor has no AMX";
  const int64_t m = 500, n = 230, k = 1024;
  const Tensor a = random({m, k}, DType::kBF16, 5), b = random({n, k}, DType::kBF16, 6);
  const auto rows = [&](int64_t begin, int64_t end) {
    Tensor c = empty({end - begin, n}, DType::kF32);
    gemm_with(GemmBackend::kOwn, {false, true, end - begin, n, k, DType::kBF16, DType::kF32}, 1,
              a.rows(begin, end).raw(), k, b.raw(), k, 0, c.raw(), n);
    return c;
  };
  const Tensor all = rows(0, m);
  for (int64_t begin : {0, 381, 384, 495}) expect_equal(rows(begin, begin + 5), all.rows(begin, begin + 5));
}

TEST(Gemm, WorksInsideAParallelRegion) {
  const int64_t n = 48;
  const Tensor a = random({8, n, n}, DType::kF32, 1), b = random({8, n, n}, DType::kF32, 2);
  Tensor c = empty({8, n, n}, DType::kF32), alone = empty({8, n, n}, DType::kF32);
  const auto product = [&](const Tensor& to, int64_t i) {
    const int64_t at = i * n * n;
    gemm({false, true, n, n, n}, 1, a.data<float>() + at, n, b.data<float>() + at, n, 0, to.data<float>() + at, n);
  };
#pragma omp parallel for num_threads(2)
  for (int64_t i = 0; i < 8; ++i) product(c, i);
  for (int64_t i = 0; i < 8; ++i) product(alone, i);
  expect_near(c, alone, tolerance(DType::kF32, n) * std::sqrt(n));
}

TEST(Gemm, ErrorsSayWhatDoesNotFit) {
  float x[4] = {};
  const auto message = [&](const GemmShape& s, int64_t lda, int64_t ldb, int64_t ldc) {
    return message_of<ShapeError>([&] { gemm(s, 1, x, lda, x, ldb, 0, x, ldc); });
  };
  EXPECT_CONTAINS(message({false, true, 1, 2, 3}, 2, 3, 2), "gemm nt f32->f32 1x2x3: lda is 2, a row of A has 3");
  EXPECT_CONTAINS(message({true, false, 4, 2, 3}, 3, 2, 2), "lda is 3, a row of A has 4");
  EXPECT_CONTAINS(message({false, true, 1, 2, 3}, 3, 2, 2), "ldb is 2, a row of B has 3");
  EXPECT_CONTAINS(message({false, false, 1, 2, 3}, 3, 1, 2), "ldb is 1, a row of B has 2");
  EXPECT_CONTAINS(message({false, false, 1, 2, 3}, 3, 2, 1), "ldc is 1, a row of C has 2");
  EXPECT_CONTAINS(message({false, false, -1, 2, 3}, 3, 2, 2), "a size is negative");
  EXPECT_CONTAINS(message({false, false, 1, 1, 1, DType::kF32, DType::kBF16}, 1, 1, 1), "f32 operands give f32 or f32");
  EXPECT_CONTAINS(message({false, false, 1, 1, 1, DType::kBF16, DType::kF16}, 1, 1, 1),
                  "bf16 operands give bf16 or f32");
  EXPECT_CONTAINS(message({false, false, 1, 1, 1, DType::kI32, DType::kI32}, 1, 1, 1), "i32");
  EXPECT_CONTAINS(message_of<ConfigError>([&] {
                    gemm_with(GemmBackend::kOneDnnMatmul, {false, false, 1, 1, 1, DType::kF16, DType::kF16}, 1, x, 1, x,
                              1, 0, x, 1);
                  }),
                  "onednn_matmul is not available on this machine");
}

}  // namespace
}  // namespace trireme::testing
