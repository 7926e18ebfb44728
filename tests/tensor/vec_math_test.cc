// The vector math of tensor/cpu/vec.h, compiled here for the processor's baseline; the kernels' own builds of it are
// covered by the ops that use it, which run under each instruction set.
#define TRIREME_ISA vec_math_test
#include "tensor/cpu/vec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace trireme::cpu::vec_math_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded || (std::isnan(got) && std::isnan(want))) return 0;
  if (std::isnan(got) || std::isinf(got) || std::isinf(rounded)) return kInfinity;
  int exponent;
  std::frexp(want, &exponent);
  return std::abs(got - want) / std::ldexp(1.0, std::max(exponent, -125) - 24);
}

// The worst error over a sweep of all floats in [low, high].
template <class Fast, class Exact>
double worst_ulps(Fast fast, Exact exact, float low, float high) {
  double worst = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 30011) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (!(x >= low && x <= high)) continue;
    worst = std::max(worst, ulps(fast(x), exact(static_cast<double>(x))));
  }
  return worst;
}

TEST(VecMath, ExpIsWithinTwoUlpOverAllFloats) {
  EXPECT_LE(worst_ulps(fast_exp, [](double x) { return std::exp(x); }, -kInfinity, kInfinity), 2);
  EXPECT_LE(worst_ulps(fast_exp_nonpositive, [](double x) { return std::exp(x); }, -87, 0), 2);
  EXPECT_EQ(fast_exp_nonpositive(-kInfinity), 0);
  EXPECT_EQ(fast_exp_nonpositive(-88), 0);
  EXPECT_EQ(fast_exp(0), 1);
  EXPECT_EQ(fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(fast_exp(-kInfinity), 0);
  EXPECT_TRUE(std::isnan(fast_exp(NAN)) && std::isnan(fast_exp_nonpositive(NAN)));
}

TEST(VecMath, Expm1TanhErfAreWithinFourUlpOverAllFloats) {
  EXPECT_LE(worst_ulps(fast_expm1, [](double x) { return std::expm1(x); }, -kInfinity, 88), 3);
  EXPECT_LE(worst_ulps(fast_tanh, [](double x) { return std::tanh(x); }, -kInfinity, kInfinity), 4);
  EXPECT_LE(worst_ulps(fast_erf, [](double x) { return std::erf(x); }, -kInfinity, kInfinity), 4);
  EXPECT_TRUE(std::isnan(fast_tanh(NAN)) && std::isnan(fast_erf(NAN)));
  EXPECT_TRUE(std::signbit(fast_tanh(-0.0f)) && std::signbit(fast_erf(-0.0f)));
}

TEST(VecMath, NormalCdfIsWithinATenthOfAMillionth) {
  for (int i = -60000; i <= 60000; ++i) {
    const float x = static_cast<float>(i) * 1e-4f;
    ASSERT_NEAR(normal_cdf(x), 0.5 * std::erfc(-static_cast<double>(x) * std::sqrt(0.5)), 1e-7) << x;
  }
  EXPECT_EQ(normal_cdf(kInfinity), 1);
  EXPECT_NEAR(normal_cdf(-kInfinity), 0, 1e-7);
}

TEST(VecMath, ConversionsEqualTheScalarOnes) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const F16 h{static_cast<uint16_t>(bits)};
    ASSERT_EQ(std::bit_cast<uint32_t>(load(&h)), std::bit_cast<uint32_t>(to_f32(h))) << bits;
  }
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 3001) {
    const float v = std::bit_cast<float>(static_cast<uint32_t>(bits));
    F16 h;
    BF16 b;
    store(&h, v);
    store(&b, v);
    ASSERT_EQ(h.bits, to_f16(v).bits) << v;
    ASSERT_EQ(b.bits, to_bf16(v).bits) << v;
  }
}

}  // namespace
}  // namespace trireme::cpu::vec_math_test
