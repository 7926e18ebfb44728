#include <cmath>
#include <numbers>

#include "tensor/cpu/activation.h"
#include "tensor/ops/gelu.h"
#include "tensor/ops/swiglu.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

double gelu_reference(double x, Gelu kind) {
  if (kind == Gelu::kErf) return 0.5 * x * std::erfc(-x * std::numbers::sqrt2 / 2);
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

TRIREME_FLOAT_TESTS(ActivationTest);

const Shape kShapes[] = {{1, 1}, {3, 7}, {2, 15}, {2, 17}, {35, 31}, {3, 257}};

TEST_P(ActivationTest, BiasGeluMatchesDoubleReferenceAndItsDifferences) {
  for (const Shape& s : kShapes)
    for (const Gelu kind : {Gelu::kTanh, Gelu::kErf})
      for (const bool with_bias : {false, true})
        check_op(OpCase{.inputs = {random(s, GetParam(), 1, 2.0),
                                   with_bias ? random({s[1]}, GetParam(), 2) : Tensor()},
                        .parameters = with_bias ? std::vector<int>{1} : std::vector<int>{},
                        .op = [&](const Tensors& in) { return Tensors{bias_gelu(in[0], in[1], kind)}; },
                        .reference =
                            [&](const Doubles& in) {
                              std::vector<double> y(in[0].size());
                              for (size_t i = 0; i < y.size(); ++i)
                                y[i] = gelu_reference(in[0][i] + (with_bias ? in[1][i % s[1]] : 0), kind);
                              return Doubles{y};
                            },
                        .max_checked = 16});
}

TEST_P(ActivationTest, GeluIsRightFarOutAndPassesNanOn) {
  for (const Gelu kind : {Gelu::kTanh, Gelu::kErf}) {
    const Tensor x = of_doubles({-60000, -88, -20, -5.5, -1e-7, 0, 1e-7, 5.5, 20, 88, 60000, NAN}, {1, 12}, GetParam());
    const auto in = to_doubles(x), y = to_doubles(bias_gelu(x, Tensor(), kind));
    for (size_t i = 0; i + 1 < in.size(); ++i)
      EXPECT_NEAR(y[i], gelu_reference(in[i], kind), tolerance(GetParam()) * std::max(1.0, std::abs(in[i]))) << in[i];
    EXPECT_TRUE(std::isnan(y.back()));
    Tape tape;
    const Tensor v = tape.variable(x.reshape({12, 1}).rows(0, 11).reshape({1, 11}));
    const Tensor out = bias_gelu(v, Tensor(), kind);
    tape.backward(out, of_doubles(std::vector<double>(11, 1.0), {1, 11}, GetParam()));
    const auto slope = to_doubles(tape.take_grad(v));
    const double want[] = {0, 0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1};
    for (size_t i = 0; i < 11; ++i) EXPECT_NEAR(slope[i], want[i], 1e-5 + tolerance(GetParam())) << in[i];
  }
}

TEST_P(ActivationTest, SwigluMatchesDoubleReferenceAndItsDifferences) {
  for (const Shape& s : kShapes)
    check_op(OpCase{.inputs = {random({s[0], 2 * s[1]}, GetParam(), 1, 2.0)},
                    .op = [](const Tensors& in) { return Tensors{swiglu(in[0])}; },
                    .reference =
                        [&](const Doubles& in) {
                          std::vector<double> y(s.numel());
                          for (int64_t t = 0; t < s[0]; ++t)
                            for (int64_t c = 0; c < s[1]; ++c) {
                              const double g = in[0][t * 2 * s[1] + c], u = in[0][t * 2 * s[1] + s[1] + c];
                              y[t * s[1] + c] = g / (1 + std::exp(-g)) * u;
                            }
                          return Doubles{y};
                        },
                    .max_checked = 32});
}

TEST_P(ActivationTest, SwigluOfFarGatesIsTheirLimit) {
  const Tensor x = of_doubles({-1000, -104, 104, 1000, 2, 2, 2, 2}, {1, 8}, GetParam());
  EXPECT_EQ(to_doubles(swiglu(x)), (std::vector<double>{0, 0, 208, 2000}));
}

TEST_P(ActivationTest, ZeroTokensAndRowViewsWork) {
  EXPECT_EQ(swiglu(empty({0, 6}, GetParam())).shape(), (Shape{0, 3}));
  EXPECT_EQ(bias_gelu(empty({0, 6}, GetParam()), Tensor(), Gelu::kErf).shape(), (Shape{0, 6}));
  const Tensor x = random({5, 22}, GetParam(), 3);
  expect_equal(swiglu(x.rows(1, 4)), swiglu(x).rows(1, 4));
  expect_equal(bias_gelu(x.rows(1, 4), Tensor(), Gelu::kTanh), bias_gelu(x, Tensor(), Gelu::kTanh).rows(1, 4));
}

TEST_P(ActivationTest, BiasGradientDoesNotDependOnTheNumberOfThreads) {
  const Shape s{301, 131};
  Tensors sums;
  for (int threads : {1, 3}) {
    ThreadsOf scope(threads);
    Tape tape;
    const Tensor x = tape.variable(random(s, GetParam(), 1));
    Tensor b = random({s[1]}, GetParam(), 2);
    GradSlot db{empty({s[1]}, DType::kF32)};
    b.set_slot(&db);
    tape.backward(bias_gelu(x, b, Gelu::kTanh), random(s, GetParam(), 3));
    sums.push_back(db.grad);
  }
  expect_equal(sums[1], sums[0]);
}

TEST_P(ActivationTest, InstructionSetsAgree) {
  const int64_t rows = 3, dim = 37;
  const DType dtype = GetParam();
  const Tensor x = random({rows, 2 * dim}, dtype, 1, 2.0), dy = random({rows, dim}, dtype, 2);
  for (const bool exact : {false, true}) {
    const auto run = [&](auto gelu, auto swiglu, auto swiglu_backward) {
      Tensor a = empty_like(x), b = empty_like(dy), c = empty_like(x);
      gelu(a.raw(), x.raw(), nullptr, dtype, rows, 2 * dim, exact);
      swiglu(b.raw(), x.raw(), dtype, rows, dim);
      swiglu_backward(c.raw(), dy.raw(), x.raw(), dtype, rows, dim);
      return Tensors{a, b, c};
    };
    const Tensors plain = run(cpu::plain::bias_gelu, cpu::plain::swiglu, cpu::plain::swiglu_backward);
    std::vector<Tensors> others;
    if (cpu::isa() >= cpu::Isa::kAvx2)
      others.push_back(run(cpu::avx2::bias_gelu, cpu::avx2::swiglu, cpu::avx2::swiglu_backward));
    if (cpu::isa() >= cpu::Isa::kAvx512)
      others.push_back(run(cpu::avx512::bias_gelu, cpu::avx512::swiglu, cpu::avx512::swiglu_backward));
    for (const Tensors& other : others)
      for (size_t i = 0; i < plain.size(); ++i) expect_near(other[i], plain[i], tolerance(dtype));
  }
}

TEST(ActivationErrors, NameOperands) {
  EXPECT_CONTAINS(message_of<ShapeError>([] { swiglu(random({2, 5}, DType::kF32, 1)); }),
                  "swiglu: gate_up is f32[2,5]; its columns must be gate and up");
  EXPECT_CONTAINS(message_of<ShapeError>([] {
                    bias_gelu(random({2, 5}, DType::kF32, 1), random({4}, DType::kF32, 1), Gelu::kErf);
                  }),
                  "bias_gelu: bias is f32[4], x is f32[2,5]; bias must be f32[5]");
  EXPECT_CONTAINS(message_of<ShapeError>([] { swiglu(random_ids({2, 4}, 5, 1)); }), "gate_up is i32[2,4]");
}

}  // namespace
}  // namespace trireme::testing
