#include "tensor/ops/reduce.h"

#include <array>
#include <cmath>
#include <cstring>

#include "tensor/cpu/reduce.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

TRIREME_FLOAT_TESTS(ReduceTest);

// Around a vector, a block of partial sums, and the threshold of a parallel region.
const int64_t kSizes[] = {0, 1, 15, 17, cpu::kSumBlock - 1, cpu::kSumBlock + 1, 70001};

TEST_P(ReduceTest, SumOfSquaresIsThatOfDoubles) {
  for (const int64_t n : kSizes) {
    const Tensor x = random({n}, GetParam(), 1, 3.0);
    double want = 0;
    for (double v : to_doubles(x)) want += v * v;
    EXPECT_NEAR(sum_of_squares(x), want, 1e-12 * want) << n;
  }
}

TEST_P(ReduceTest, SumOfSquaresDoesNotDependOnTheNumberOfThreads) {
  const Tensor x = random({200003}, GetParam(), 1);
  double sums[3];
  for (int threads : {1, 2, 3}) {
    ThreadsOf scope(threads);
    sums[threads - 1] = sum_of_squares(x);
  }
  EXPECT_EQ(sums[1], sums[0]);
  EXPECT_EQ(sums[2], sums[0]);
}

TEST_P(ReduceTest, AllFiniteFindsOneInfinityOrNanAnywhere) {
  for (const int64_t n : {int64_t{1}, int64_t{17}, int64_t{70001}}) {
    auto values = to_doubles(random({n}, GetParam(), 1));
    EXPECT_TRUE(all_finite(of_doubles(values, {n}, GetParam())));
    for (const int64_t at : {int64_t{0}, n / 2, n - 1})
      for (const float bad : {INFINITY, -INFINITY, NAN}) {
        auto spoiled = values;
        spoiled[at] = bad;
        EXPECT_FALSE(all_finite(of_doubles(spoiled, {n}, GetParam()))) << bad << " at " << at << " of " << n;
      }
  }
  EXPECT_TRUE(all_finite(empty({0}, GetParam())));
}

TEST_P(ReduceTest, ScaleAxpyAndFillMatchDoubles) {
  for (const int64_t n : kSizes) {
    const Tensor x = random({n}, GetParam(), 1), y = random({n}, GetParam(), 2);
    auto scaled = to_doubles(x), sum = to_doubles(y);
    for (int64_t i = 0; i < n; ++i) sum[i] -= 1.5 * scaled[i], scaled[i] *= 0.3f;
    axpy(-1.5f, x, y);
    expect_near(y, sum, tolerance(GetParam()), "axpy");
    scale_in_place(x, 0.3f);
    expect_near(x, scaled, tolerance(GetParam()), "scale");
    fill(x, -2.5f);
    EXPECT_EQ(to_doubles(x), std::vector<double>(n, -2.5));
  }
}

TEST_P(ReduceTest, CastEqualsTheScalarConversionsBitForBit) {
  // Every 16-bit pattern, and f32 values around each of its rounding points.
  std::vector<double> values;
  const Tensor all = empty({65536}, GetParam() == DType::kF32 ? DType::kBF16 : GetParam());
  for (int i = 0; i < 65536; ++i) static_cast<uint16_t*>(all.raw())[i] = static_cast<uint16_t>(i);
  const Tensor wide = cast(all, DType::kF32);
  for (int i = 0; i < 65536; ++i) {
    const float want = all.dtype() == DType::kBF16 ? to_f32(all.data<BF16>()[i]) : to_f32(all.data<F16>()[i]);
    EXPECT_EQ(std::memcmp(&want, wide.data<float>() + i, 4), 0) << i;
  }
  const Tensor around = empty({4 * 65536}, DType::kF32);
  for (int i = 0; i < 65536; ++i)
    for (int k = 0; k < 4; ++k) {
      uint32_t bits;
      std::memcpy(&bits, wide.data<float>() + i, 4);
      bits += std::array{0u, 0x0fffu, 0x1000u, 0x8001u}[k];
      std::memcpy(around.data<float>() + 4 * i + k, &bits, 4);
    }
  if (GetParam() == DType::kF32) return;
  const Tensor narrow = cast(around, GetParam());
  for (int64_t i = 0; i < narrow.numel(); ++i) {
    const float v = around.data<float>()[i];
    const uint16_t want = GetParam() == DType::kBF16 ? to_bf16(v).bits : to_f16(v).bits;
    ASSERT_EQ(static_cast<uint16_t*>(narrow.raw())[i], want) << v;
  }
}

TEST_P(ReduceTest, InstructionSetsCastAlike) {
  const Tensor x = random({1003}, DType::kF32, 1, 100.0);
  const auto run = [&](auto kernel) {
    Tensor y = empty(x.shape(), GetParam());
    kernel(y.raw(), GetParam(), x.raw(), DType::kF32, x.numel());
    return y;
  };
  const Tensor plain = run(cpu::plain::cast);
  if (cpu::isa() >= cpu::Isa::kAvx2) expect_equal(run(cpu::avx2::cast), plain);
  if (cpu::isa() >= cpu::Isa::kAvx512) expect_equal(run(cpu::avx512::cast), plain);
}

TEST_P(ReduceTest, CopyColumnsTakesTheBlock) {
  const Tensor x = random({5, 23}, GetParam(), 1);
  const auto from = to_doubles(x);
  std::vector<double> want;
  for (int t = 0; t < 5; ++t)
    for (int c = 4; c < 17; ++c) want.push_back(from[t * 23 + c]);
  EXPECT_EQ(to_doubles(copy_columns(x, 4, 17)), want);
  EXPECT_EQ(copy_columns(x, 4, 4).shape(), (Shape{5, 0}));
  expect_equal(copy_columns(x, 0, 23), x);
}

TEST(ReduceErrors, NameOperands) {
  EXPECT_CONTAINS(message_of<ShapeError>([] { sum_of_squares(random_ids({3}, 3, 1)); }), "sum_of_squares: x is i32[3]");
  EXPECT_CONTAINS(message_of<ShapeError>([] { axpy(1, random({3}, DType::kF32, 1), random({4}, DType::kF32, 1)); }),
                  "axpy: x is f32[3], y is f32[4]");
  EXPECT_CONTAINS(message_of<ShapeError>([] { copy_columns(random({3, 4}, DType::kF32, 1), 2, 5); }),
                  "copy_columns: columns [2,5) of f32[3,4]");
}

}  // namespace
}  // namespace trireme::testing
