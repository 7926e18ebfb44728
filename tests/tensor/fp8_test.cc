#include "tensor/fp8.h"

#include <cmath>

#include "tensor/on_device.h"
#include "tensor/ops/fp8_linear.h"
#include "tensor/ops/linear.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

constexpr Fp8 kTypes[] = {Fp8::kE4M3, Fp8::kE5M2};

// By the definition: sign, exponent, mantissa.
double value_of(int code, Fp8 type) {
  const int m = type == Fp8::kE4M3 ? 3 : 2, bias = type == Fp8::kE4M3 ? 7 : 15;
  const int exponent = (code & 0x7f) >> m, mantissa = code & ((1 << m) - 1);
  const double v = exponent == 0 ? std::ldexp(mantissa, 1 - bias - m) : std::ldexp((1 << m) + mantissa, exponent - bias - m);
  return code & 0x80 ? -v : v;
}

TEST(Fp8, EveryNumberReadsBackAsWhatItIs) {
  for (Fp8 type : kTypes) {
    const int largest = format_of(type).largest_code;
    EXPECT_EQ(value_of(largest, type), type == Fp8::kE4M3 ? 448 : 57344);
    for (int code = 0; code < 256; ++code) {
      const float v = from_fp8(static_cast<uint8_t>(code), type);
      if ((code & 0x7f) > largest) {
        EXPECT_EQ(std::isnan(v), type == Fp8::kE4M3 || (code & 0x7f) != 0x7c) << code;
        continue;
      }
      EXPECT_EQ(v, value_of(code, type)) << code;
      EXPECT_EQ(std::signbit(v), code >= 0x80) << code;
      EXPECT_EQ(to_fp8(v, type), code);
    }
  }
}

TEST(Fp8, RoundsToTheNearestAndTiesToEven) {
  for (Fp8 type : kTypes) {
    const int largest = format_of(type).largest_code;
    for (int code = 0; code < largest; ++code) {
      const double low = value_of(code, type), high = value_of(code + 1, type), middle = (low + high) / 2;
      const int even = code % 2 ? code + 1 : code;
      for (int sign : {0, 0x80}) {
        const auto narrowed = [&](double v) { return static_cast<int>(to_fp8(static_cast<float>(sign ? -v : v), type)); };
        EXPECT_EQ(narrowed(middle), even | sign) << code;
        EXPECT_EQ(narrowed(std::nextafter(static_cast<float>(middle), 0.0f)), code | sign) << code;
        EXPECT_EQ(narrowed(std::nextafter(static_cast<float>(middle), INFINITY)), (code + 1) | sign) << code;
      }
    }
    const float past = format_of(type).largest;
    for (float v : {past, past * 1.2f, 1e30f, INFINITY}) {
      EXPECT_EQ(to_fp8(v, type), largest);
      EXPECT_EQ(to_fp8(-v, type), largest | 0x80);
    }
    EXPECT_TRUE(std::isnan(from_fp8(to_fp8(NAN, type), type)));
    EXPECT_EQ(to_fp8(1e-40f, type), 0);
    EXPECT_EQ(to_fp8(-1e-40f, type), 0x80);
  }
}

TEST(Fp8, TheScaleIsThePowerOfTwoThatFitsTheLargest) {
  for (Fp8 type : kTypes) {
    const float most = format_of(type).largest;
    for (float largest : {1.0f, 1.75f, std::nextafter(1.75f, 2.0f), 1.999f, 448.0f, 449.0f, 3e-20f, 7e20f}) {
      const float scale = fp8_scale_for(largest, type);
      int exponent = 0;
      EXPECT_EQ(std::frexp(scale, &exponent), 0.5f);
      EXPECT_LE(largest * scale, most) << largest;
      EXPECT_GT(largest * scale * 2, most) << largest;
    }
    EXPECT_EQ(fp8_scale_for(0, type), 1);
    EXPECT_TRUE(std::isnan(fp8_scale_for(INFINITY, type)));
    EXPECT_TRUE(std::isnan(fp8_scale_for(NAN, type)));
    for (float tiny : {1e-40f, 1e-45f}) EXPECT_TRUE(std::isfinite(1 / fp8_scale_for(tiny, type)));
  }
}

// What the products compute with: the elements rounded at the matrix's scale.
std::vector<double> rounded(const Tensor& t, Fp8 type) {
  std::vector<double> values = to_doubles(t);
  double largest = 0;
  for (double v : values) largest = std::max(largest, std::abs(v));
  const double scale = fp8_scale_for(static_cast<float>(largest), type);
  for (double& v : values) v = from_fp8(to_fp8(static_cast<float>(v * scale), type), type) / scale;
  return values;
}

void expect_near(const Tensor& got, const std::vector<double>& want, double tolerance, const char* what) {
  const double smallest = got.dtype() == DType::kF16 ? 0x1p-24 : 0;  // numbers of f16 are no closer
  const std::vector<double> values = to_doubles(got);
  ASSERT_EQ(values.size(), want.size()) << what;
  double largest = 0;
  for (double v : want) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(values[i], want[i], tolerance * largest + smallest) << what << ' ' << i;
}

TRIREME_FLOAT_TESTS(Fp8LinearTest);

TEST_P(Fp8LinearTest, MatchesDoubleProductsOfTheRoundedOperands) {
  const double tolerance = GetParam() == DType::kF32 ? 1e-6 : GetParam() == DType::kF16 ? 1e-3 : 8e-3;
  for (auto [tokens, in, out] : {std::array<int64_t, 3>{1, 16, 16}, {5, 32, 48}, {33, 80, 16}, {70, 64, 144}})
    for (double size : {1.0, 1e-3, 300.0}) {
      const Tensor x = random({tokens, in}, GetParam(), 1, size), w = random({out, in}, GetParam(), 2, 0.02),
                   b = random({out}, GetParam(), 3), dy = random({tokens, out}, GetParam(), 4, size / 50);
      const auto xq = rounded(x, Fp8::kE4M3), wq = rounded(w, Fp8::kE4M3), dyq = rounded(dy, Fp8::kE5M2), bias = to_doubles(b);
      std::vector<double> y(tokens * out), dx(tokens * in), dw(out * in, 0.25);
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t o = 0; o < out; ++o) {
          y[t * out + o] = bias[o];
          for (int64_t i = 0; i < in; ++i) {
            y[t * out + o] += xq[t * in + i] * wq[o * in + i];
            dx[t * in + i] += dyq[t * out + o] * wq[o * in + i];
            dw[o * in + i] += dyq[t * out + o] * xq[t * in + i];
          }
        }
      expect_near(to_device(fp8_linear_forward(there(x), there(w), there(b)), Device::cpu()), y, tolerance, "y");
      expect_near(to_device(fp8_linear_backward_input(there(dy), there(w)), Device::cpu()), dx, tolerance, "dx");
      GradSlot slot{there(of_doubles(std::vector<double>(out * in, 0.25), {out, in}, DType::kF32)), false};
      fp8_linear_backward_weight(there(dy), there(x), slot);
      expect_near(to_device(slot.grad, Device::cpu()), dw, 1e-5, "dw");
      GradSlot fresh{there(of_doubles(std::vector<double>(out * in, std::nan("")), {out, in}, DType::kF32))};
      fp8_linear_backward_weight(there(dy), there(x), fresh);
      for (double& v : dw) v -= 0.25;
      expect_near(to_device(fresh.grad, Device::cpu()), dw, 1e-5, "dw of an empty slot");
      EXPECT_FALSE(fresh.empty);
      // And near the product itself: 3 and 2 bits of mantissa, averaged over the sums.
      GradSlot exact{there(of_doubles(std::vector<double>(out * in, 0), {out, in}, DType::kF32))};
      linear_backward_weight(there(dy), there(x), exact);
      expect_near(to_device(exact.grad, Device::cpu()), dw, 0.15, "beside the linear layer's");
    }
}

// An overflow must not become the largest number.
TEST_P(Fp8LinearTest, NothingMatchesANumberWhereAnOperandIsNotFinite) {
  for (double bad : {static_cast<double>(INFINITY), std::nan("")}) {
    Tensor x = random({3, 16}, GetParam(), 1);
    std::vector<double> values = to_doubles(x);
    values[17] = bad;
    x = of_doubles(values, {3, 16}, GetParam());
    for (double v : to_doubles(to_device(fp8_linear_forward(there(x), there(random({16, 16}, GetParam(), 2)), {}), Device::cpu())))
      EXPECT_TRUE(std::isnan(v));
  }
}

TEST(Fp8Linear, SaysWhatDoesNotFit) {
  const auto error_of = [](const auto& fn) -> std::string {
    try {
      fn();
    } catch (const ShapeError& e) {
      return e.what();
    }
    return "";
  };
  const Tensor x = random({3, 24}, DType::kF32, 1), w = random({16, 24}, DType::kF32, 1);
  EXPECT_EQ(error_of([&] { fp8_linear_forward(x, w, {}); }),
            "fp8_linear: 24 inputs and 16 outputs; 8-bit products want multiples of 16");
  EXPECT_NE(error_of([&] { fp8_linear_forward(random({3, 32}, DType::kF32, 1), random({16, 16}, DType::kF32, 1), {}); })
                .find("weight must be f32[out,32]"),
            std::string::npos);
  EXPECT_NE(error_of([&] { fp8_linear_backward_input(random({3, 16}, DType::kBF16, 1), random({16, 16}, DType::kF32, 1)); })
                .find("one dtype"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme::testing
