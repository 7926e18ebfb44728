// Products of f32 operands in bf16x3, bf16 (tensor/cpu/split_gemm.h) and f16 (f16_gemm.h), through gemm_with().
#include "tensor/cpu/split_gemm.h"

#include <omp.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tensor/cpu/amx_gemm.h"
#include "tensor/gemm_table.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                kInfinity = std::numeric_limits<float>::infinity(),
                kLargest = std::numeric_limits<float>::max();

// What one term a b of a sum may be off, over |a| |b|: both roundings of a bf16 are within 2^-8, of an f16 within
// 2^-11; sums of 32 terms in f16 are a random walk of as many roundings.
double term_error(GemmBackend backend) {
  if (backend == GemmBackend::kF16) return (2 + 6) * 0x1p-11;
  return backend == GemmBackend::kBf16x3 ? 3 * 0x1p-16 + 0x1p-24 : 2 * 0x1p-8 + 0x1p-16;
}

struct Operands {
  GemmShape shape;
  float alpha, beta;
  int64_t lda, ldb, ldc;
  Tensor a, b, c;  // beyond the matrices' rows: NaN in A and B, 77 in C

  Operands(const GemmShape& s, float alpha, float beta, int64_t extra, uint64_t seed, double scale_a = 1,
           double scale_b = 1)
      : shape(s), alpha(alpha), beta(beta) {
    a = padded(s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, extra, kNaN, seed, scale_a);
    b = padded(s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, extra, kNaN, seed + 1, scale_b);
    c = padded(s.m, s.n, extra, 77, seed + 2, 1);
    lda = a.dim(1), ldb = b.dim(1), ldc = c.dim(1);
    if (beta == 0)  // must not be read
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) c.data<float>()[i * ldc + j] = kNaN;
  }
  float& a_at(int64_t i, int64_t p) const {
    return a.data<float>()[shape.transpose_a ? p * lda + i : i * lda + p];
  }
  float& b_at(int64_t p, int64_t j) const {
    return b.data<float>()[shape.transpose_b ? j * ldb + p : p * ldb + j];
  }

  Tensor run(GemmBackend backend) const {
    Tensor to = empty_like(c);
    copy(c, to);
    gemm_with(backend, shape, alpha, a.raw(), lda, b.raw(), ldb, beta, to.raw(), ldc);
    return to;
  }

  // `lost`: what else an operand may lose of each number, for those too small for the unit.
  void check(GemmBackend backend, double lost = 0) const {
    const Tensor got = run(backend);
    // f32 roundings of partial sums no larger than that of |a| |b|, up to three of them a term, as a random
    // walk.
    const double sums = 4 * 0x1p-24 * std::sqrt(3.0 * static_cast<double>(shape.k) + 2);
    int wrong = 0;
    for (int64_t i = 0; i < shape.m; ++i)
      for (int64_t j = 0; j < ldc; ++j) {
        double largest_a = 0, largest_b = 0;
        const float value = got.data<float>()[i * ldc + j];
        if (j >= shape.n) {
          wrong += value != 77;
          continue;
        }
        double sum = 0, sizes = 0, other = 0;
        for (int64_t p = 0; p < shape.k; ++p) {
          const double x = a_at(i, p), y = b_at(p, j);
          sum += x * y;
          sizes += std::abs(x * y);
          largest_a = std::max(largest_a, std::abs(x)), largest_b = std::max(largest_b, std::abs(y));
          other += lost * (std::abs(x) + std::abs(y));
        }
        if (backend == GemmBackend::kF16)  // subnormal operands and sums, after scaling
          other += static_cast<double>(shape.k) * 3 * 0x1p-29 * largest_a * largest_b;
        const double before = beta == 0 ? 0 : beta * double{c.data<float>()[i * ldc + j]};
        const double allowed = std::abs(alpha) * (sizes * (term_error(backend) + sums) + other) +
                               4 * 0x1p-24 * (std::abs(before) + std::abs(alpha * sum));
        if (!(std::abs(value - (alpha * sum + before)) <= allowed) && ++wrong <= 3)
          ADD_FAILURE() << text(name_of(backend), ' ', shape, " [", i, ", ", j, "]: ", value, ", want ",
                                alpha * sum + before, " within ", allowed);
      }
    EXPECT_EQ(wrong, 0) << text(name_of(backend), ' ', shape);
  }

 private:
  static Tensor padded(int64_t rows, int64_t columns, int64_t extra, float outside, uint64_t seed,
                       double scale) {
    Tensor t = random({rows, columns + extra}, DType::kF32, seed, scale);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = columns; j < columns + extra; ++j)
        t.data<float>()[i * (columns + extra) + j] = outside;
    return t;
  }
};

class SplitGemm : public ::testing::TestWithParam<GemmBackend> {
 protected:
  void SetUp() override {
    if (!gemm_available(GetParam(), {})) GTEST_SKIP() << "this processor has no unit for " << name_of(GetParam());
  }
  // Every orientation, with different factors and leading dimensions.
  static void check_all(int64_t m, int64_t n, int64_t k) {
    uint64_t seed = static_cast<uint64_t>(m * 131 + n * 17 + k);
    for (int op = 0; op < 4; ++op, ++seed) {
      const auto [alpha, beta, extra] = std::array<std::tuple<float, float, int64_t>, 4>{
          {{1, 0, 0}, {1, 1, 5}, {-0.5f, 0, 3}, {2, -0.75f, 1}}}[seed % 4];
      Operands({(op & 1) != 0, (op & 2) != 0, m, n, k}, alpha, beta, extra, seed).check(GetParam());
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Precisions, SplitGemm, ::testing::Values(GemmBackend::kBf16x3, GemmBackend::kBf16, GemmBackend::kF16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(SplitGemm, StaysWithinItsErrorOnOddShapes) {
  for (auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                         {1, 2, 31},
                         {2, 1, 33},
                         {3, 5, 7},
                         {15, 17, 16},
                         {16, 16, 32},
                         {17, 15, 64},
                         {31, 33, 47},
                         {32, 32, 255},
                         {33, 31, 257},
                         {65, 1, 40},
                         {1, 65, 97}})
    check_all(m, n, k);
}

TEST_P(SplitGemm, StaysWithinItsErrorOverSlicesStretchesAndSharesOfThreads) {
  check_all(70, 300, 520);  // slices of k, groups of panels
  check_all(300, 70, 300);  // the other operand is the smaller
  check_all(5, 40, 4100);   // stretches of k, of which the first alone may take beta
  check_all(600, 530, 40);  // shares of rows
}

TEST_P(SplitGemm, TakesMoreRowsThanAreInTilesAtOnce) {
  const GemmShape s{false, true, 4130, 4140, 5};
  Operands(s, 1, 1, 0, 3).check(GetParam());
}

// A lost half shows here: what remains must be random, and that small.
TEST_P(SplitGemm, HasTheRootMeanSquareErrorOfItsRoundings) {
  for (int op = 0; op < 4; ++op) {
    const GemmShape s{(op & 1) != 0, (op & 2) != 0, 50, 60, 700};
    const Operands x(s, 1, 0, 0, 9);
    const Tensor got = x.run(GetParam());
    double error = 0, size = 0;
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < s.k; ++p) sum += double{x.a_at(i, p)} * x.b_at(p, j);
        error += std::pow(got.data<float>()[i * s.n + j] - sum, 2);
        size += sum * sum;
      }
    const double relative = std::sqrt(error / size);
    const auto [least, most] = GetParam() == GemmBackend::kBf16x3 ? std::pair(0x1p-20, 0x1p-17)
                               : GetParam() == GemmBackend::kBf16 ? std::pair(0x1p-10, 0x1p-8)
                                                                  : std::pair(0x1p-11, 0x1.8p-10);
    EXPECT_LT(relative, most) << s;
    EXPECT_GT(relative, least) << s;
  }
}

TEST_P(SplitGemm, GivesARowTheSameBitsAmongAnyOthersAndOnAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (int op = 0; op < 4; ++op) {
    const GemmShape whole{(op & 1) != 0, (op & 2) != 0, 150, 130, 2310};
    const Operands x(whole, 1.5f, 0, 0, 20);
    const auto part = [&](int64_t i, int64_t m, int64_t j, int64_t n, int thread_count) {
      omp_set_num_threads(thread_count);
      Tensor c = empty({m, n}, DType::kF32);
      GemmShape s = whole;
      s.m = m, s.n = n;
      gemm_with(GetParam(), s, 1.5f, &x.a_at(i, 0), x.lda, &x.b_at(0, j), x.ldb, 0, c.raw(), n);
      omp_set_num_threads(threads);
      return c;
    };
    const Tensor all = part(0, 150, 0, 130, 1);
    for (int t : {2, 3, 7}) expect_equal(part(0, 150, 0, 130, t), all, text(whole, ", ", t, " threads"));
    for (auto [i, m, j, n] :
         {std::array<int64_t, 4>{3, 1, 0, 130}, {0, 1, 4, 7}, {40, 70, 5, 33}, {7, 140, 129, 1}}) {
      const Tensor some = part(i, m, j, n, 2);
      Tensor want = empty({m, n}, DType::kF32);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t q = 0; q < n; ++q)
          want.data<float>()[r * n + q] = all.data<float>()[(i + r) * 130 + j + q];
      expect_equal(some, want, text(whole, ", rows from ", i, ", columns from ", j));
    }
  }
}

TEST_P(SplitGemm, SpreadsNonFiniteNumbersToTheirRowsAndColumnsAlone) {
  for (int op = 0; op < 4; ++op) {
    const GemmShape s{(op & 1) != 0, (op & 2) != 0, 40, 50, 70};
    const Operands clean(s, 1, 0, 0, 5), x(s, 1, 0, 0, 5);
    x.a_at(3, 20) = kInfinity;
    x.a_at(9, 33) = -kInfinity;
    x.b_at(11, 6) = kNaN;
    const Tensor want = clean.run(GetParam()), got = x.run(GetParam());
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        const float g = got.data<float>()[i * s.n + j];
        if (j == 6)
          EXPECT_TRUE(std::isnan(g)) << s << ' ' << i;
        else if ((i == 3 || i == 9) && GetParam() != GemmBackend::kBf16x3)
          EXPECT_EQ(
              g, i == 3 ? std::copysign(kInfinity, x.b_at(20, j)) : -std::copysign(kInfinity, x.b_at(33, j)))
              << s;
        else if (i == 3 || i == 9)
          EXPECT_FALSE(std::isfinite(g)) << s << ' ' << j;
        else
          EXPECT_EQ(std::bit_cast<uint32_t>(g), std::bit_cast<uint32_t>(want.data<float>()[i * s.n + j]))
              << s;
      }
  }
}

TEST_P(SplitGemm, TakesNumbersOfAnySize) {
  for (int op = 0; op < 4; ++op) {
    const GemmShape s{(op & 1) != 0, (op & 2) != 0, 33, 20, 50};
    Operands(s, 1, 0, 1, 7, 0x1p-90, 0x1p60).check(GetParam());
    Operands(s, 1, 0, 1, 7, 0x1p100, 0x1p-90).check(GetParam());
    // Halves below 2^-126 count as zero.
    Operands(s, 1, 0, 1, 7, 0x1p-124, 1).check(GetParam(), 0x1p-126);
    Operands(s, 1, 1, 1, 7, 0x1p-140, 1).check(GetParam(), 0x1p-126);
    // The largest numbers round to no infinity.
    const Operands x(s, 1, 0, 0, 8, 1, 0x1p-20);
    for (int64_t i = 0; i < s.m; ++i) x.a_at(i, i % s.k) = i % 2 ? kLargest : -kLargest;
    x.check(GetParam());
  }
  const float one = 1;
  for (const float large :
       {kLargest, -kLargest, std::nextafter(kLargest, 0.0f), 0x1.fefffep127f, 0x1.fe8p127f}) {
    float c = 0;
    gemm_with(GetParam(), {false, false, 1, 1, 1}, 1, &large, 1, &one, 1, 0, &c, 1);
    if (GetParam() == GemmBackend::kF16 && std::abs(large) > 0x1.ffep127f)  // which rounds to 2^128
      EXPECT_EQ(c, std::copysign(kInfinity, large));
    else
      EXPECT_NEAR(c / large, 1, GetParam() == GemmBackend::kBf16x3 ? 0x1p-15 : 0x1p-7) << large;
  }
}

// Rows and columns so far apart in size that f16 holds none of them as they are, and along k too.
TEST_P(SplitGemm, ScalesEachRowAndColumn) {
  for (int op = 0; op < 4; ++op) {
    const GemmShape s{(op & 1) != 0, (op & 2) != 0, 35, 37, 600};
    const Operands x(s, 1, 0, 2, 41);
    for (int64_t p = 0; p < s.k; ++p) {
      const int slice = static_cast<int>(p / 256);
      for (int64_t i = 0; i < s.m; ++i) x.a_at(i, p) *= std::ldexp(1.0f, static_cast<int>(i) * 3 - 60 + slice * 20);
      for (int64_t j = 0; j < s.n; ++j) x.b_at(p, j) *= std::ldexp(1.0f, 40 - static_cast<int>(j) * 2 - slice * 20);
    }
    const Tensor got = x.run(GetParam());
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0, square = 0;
        for (int64_t p = 0; p < s.k; ++p) {
          const double term = double{x.a_at(i, p)} * x.b_at(p, j);
          sum += term, square += term * term;
        }
        EXPECT_LT(std::abs(got.data<float>()[i * x.ldc + j] - sum), 0.03 * std::sqrt(square)) << s << ' ' << i << ' ' << j;
      }
  }
}

TEST_P(SplitGemm, WorksInsideAParallelRegion) {
  const Operands x({false, true, 90, 80, 300}, 1, 0, 0, 31);
  const Tensor want = x.run(GetParam());
  std::vector<Tensor> got(6);
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < 6; ++i) got[static_cast<size_t>(i)] = x.run(GetParam());
  for (const Tensor& g : got) expect_equal(g, want);
}

TEST_P(SplitGemm, ScalesCWithoutTerms) {
  std::vector<float> c = {1, 2, 9, 3, 4, 9};
  gemm_with(GetParam(), {false, false, 2, 2, 0}, 1, nullptr, 0, nullptr, 2, 0.5f, c.data(), 3);
  EXPECT_EQ(c, (std::vector<float>{0.5f, 1, 9, 1.5f, 2, 9}));
}

TEST(MatmulPrecision, IsWhatTheTableInForceSays) {
  const GemmTable before = gemm_table();
  GemmTable table = before;
  const GemmShape f32{false, true, 40, 50, 60}, bf16{false, true, 40, 50, 60, DType::kBF16, DType::kF32};
  const Operands x(f32, 1, 0, 0, 12);
  for (auto [precision, backend] : {std::pair(MatmulPrecision::kBf16x3, GemmBackend::kBf16x3),
                                    {MatmulPrecision::kBf16, GemmBackend::kBf16},
                                    {MatmulPrecision::kF16, GemmBackend::kF16}}) {
    table.set(f32, gemm_threads(), GemmBackend::kOneDnnSgemm);  // an entry does not matter
    table.set_precision(precision);
    EXPECT_EQ(table.choose(f32, gemm_threads()), backend);
    EXPECT_EQ(table.choose({true, false, 1, 1, 1}, 1), backend);
    EXPECT_EQ(table.choose(bf16, 2), before.choose(bf16, 2));
    EXPECT_EQ(table.to_text().find("bf16x3"), std::string::npos);
    if (!available(precision)) {
      EXPECT_EQ(message_of<ConfigError>([&] { use_gemm_table(table); }),
                text("products in ", name_of(precision),
                     " need ", hardware_for(precision), ", which this processor or its system lacks (or TRIREME_ISA hides it)"));
      EXPECT_CONTAINS(message_of<ConfigError>([&] { x.run(backend); }), "is not available on this machine");
      EXPECT_TRUE(gemm_table() == before);
      continue;
    }
    use_gemm_table(table);
    Tensor got = empty({40, 50}, DType::kF32);
    gemm(f32, 1, x.a.raw(), 60, x.b.raw(), 60, 0, got.raw(), 50);
    expect_equal(got, x.run(backend));
    EXPECT_GT(measure_gemm_rate(1), 1e8);
    EXPECT_GT(measure_gemm_rate(1, MatmulPrecision::kF32), 1e8);
    EXPECT_TRUE(gemm_table() == table);
    EXPECT_CONTAINS(message_of<ConfigError>(
                        [&] { gemm_with(backend, bf16, 1, x.a.raw(), 60, x.b.raw(), 60, 0, got.raw(), 50); }),
                    "is not available");
  }
  use_gemm_table(before);
}

}  // namespace
}  // namespace trireme::testing
