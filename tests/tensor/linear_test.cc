#include "tensor/ops/linear.h"

#include <omp.h>

#include <cmath>

#include "tensor/cpu/bias.h"
#include "tests/tensor/op_testing.h"
#ifdef TRIREME_CUDA_EMULATED
#include "cuda_runtime_api.h"
#endif

namespace trireme::testing {
namespace {

std::vector<double> linear_reference(const std::vector<double>& x, const std::vector<double>& w,
                                     const std::vector<double>& b, int64_t in, int64_t out) {
  const int64_t tokens = in ? static_cast<int64_t>(x.size()) / in : 0;
  std::vector<double> y(tokens * out);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t o = 0; o < out; ++o) {
      double sum = b.empty() ? 0 : b[o];
      for (int64_t i = 0; i < in; ++i) sum += x[t * in + i] * w[o * in + i];
      y[t * out + o] = sum;
    }
  return y;
}

Tensor nan_grad(const Shape& shape) {
  return of_doubles(std::vector<double>(shape.numel(), std::nan("")), shape, DType::kF32);
}

TRIREME_FLOAT_TESTS(LinearTest);

TEST_P(LinearTest, MatchesDoubleReferenceAndItsGradients) {
  for (auto [tokens, in, out] :
       {std::array<int64_t, 3>{1, 1, 1}, {1, 5, 3}, {3, 7, 2}, {5, 17, 15}, {17, 16, 33}, {2, 65, 31}})
    for (bool with_bias : {true, false}) {
      // Values of size one over sqrt(in), so that results are of order one.
      const double scale = 1 / std::sqrt(static_cast<double>(in));
      OpCase c{.inputs = {random({tokens, in}, GetParam(), 1), random({out, in}, GetParam(), 2, scale)},
               .parameters = {1, 2},
               .op = [](const Tensors& t) { return Tensors{linear(t[0], t[1], t[2])}; },
               .reference = [in = in, out = out](const Doubles& d) {
                 return Doubles{linear_reference(d[0], d[1], d[2], in, out)};
               },
               .reduction = in,
               .grad_reduction = std::max(tokens, out),
               .tolerance_scale = 3};  // dy is not scaled: gradients are of size sqrt(tokens) and sqrt(out / in)
      c.inputs.push_back(with_bias ? random({out}, GetParam(), 3) : Tensor());
      check_op(c);
    }
}

// All three inputs variables: what a test of a layer, or a computed weight, needs.
TEST_P(LinearTest, GivesGradientsToWeightsThatAreVariables) {
  const Tensor bias = random({9}, GetParam(), 3);
  check_op(OpCase{.inputs = {random({4, 6}, GetParam(), 1), random({9, 6}, GetParam(), 2, 0.4), bias},
                  .op = [](const Tensors& t) { return Tensors{linear(t[0], t[1], t[2])}; },
                  .reference = [](const Doubles& d) { return Doubles{linear_reference(d[0], d[1], d[2], 6, 9)}; },
                  .reduction = 9,
                  .tolerance_scale = 3});
}

double gelu_reference(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

// In the product where the device can, and beside it where it cannot, for its size or at all.
TEST_P(LinearTest, GeluOfAProductMatchesItsReferenceAndBack) {
  for (const bool fused : {true, false}) {
#ifdef TRIREME_CUDA_EMULATED
    cuda_emulation::settings().fused_products = fused;
#else
    if (!fused) continue;
#endif
    for (auto [tokens, in, out] : {std::array<int64_t, 3>{3, 5, 8}, {5, 17, 13}, {7, 8, 32}})
      for (const bool with_bias : {true, false}) {
        const double scale = 1 / std::sqrt(static_cast<double>(in));
        const Tensor x = random({tokens, in}, GetParam(), 1), w = random({out, in}, GetParam(), 2, scale),
                     b = with_bias ? random({out}, GetParam(), 3) : Tensor();
        const double tol = 3 * tolerance(GetParam(), in);
        std::vector<double> want = linear_reference(to_doubles(x), to_doubles(w), with_bias ? to_doubles(b) : std::vector<double>(),
                                                    in, out);
        expect_near(linear_forward(there(x), there(w), there(b)), want, tol, "product");
        const LinearGelu got = linear_gelu_forward(there(x), there(w), there(b), true);
        expect_near(got.before, want, tol, "before");
        for (double& v : want) v = gelu_reference(v);
        expect_near(got.y, want, tol, "gelu");
        const LinearGelu alone = linear_gelu_forward(there(x), there(w), there(b), false);
        EXPECT_FALSE(alone.before.defined());
        expect_near(alone.y, want, tol, "gelu, nothing kept");

        // Back through a layer of 6 outputs after it.
        const Tensor dy = random({tokens, 6}, GetParam(), 4), after = random({6, out}, GetParam(), 5, 0.4);
        const std::vector<double> d = to_doubles(dy), a = to_doubles(after), before = to_doubles(got.before);
        std::vector<double> back(before.size());
        for (size_t i = 0; i < back.size(); ++i) {
          const int64_t t = static_cast<int64_t>(i) / out, o = static_cast<int64_t>(i) % out;
          for (int64_t k = 0; k < 6; ++k) back[i] += d[t * 6 + k] * a[k * out + o];
          back[i] *= (gelu_reference(before[i] + 1e-5) - gelu_reference(before[i] - 1e-5)) / 2e-5;
        }
        expect_near(linear_gelu_backward_input(there(dy), there(after), got.before), back, 3 * tolerance(GetParam(), 6), "back");
      }
  }
#ifdef TRIREME_CUDA_EMULATED
  cuda_emulation::settings().fused_products = true;
#endif
  const Tensor dy = there(random({3, 6}, GetParam(), 4)), after = there(random({6, 8}, GetParam(), 5));
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear_gelu_backward_input(dy, after, there(empty({3, 7}, GetParam()))); }),
                  "linear_gelu_backward_input: before is");
}

TEST_P(LinearTest, NoTokensGiveNoRowsAndZeroGradients) {
  const Tensor x = empty({0, 5}, GetParam()), w = random({3, 5}, GetParam(), 1), b = random({3}, GetParam(), 2);
  EXPECT_EQ(linear(x, w, b).shape(), (Shape{0, 3}));
  const Tensor dy = empty({0, 3}, GetParam());
  EXPECT_EQ(linear_backward_input(dy, w).shape(), (Shape{0, 5}));
  GradSlot weight{nan_grad({3, 5})}, bias{nan_grad({3})};
  linear_backward_weight(dy, x, weight);
  linear_backward_bias(dy, bias);
  expect_equal(weight.grad, zeros({3, 5}, DType::kF32));
  expect_equal(bias.grad, zeros({3}, DType::kF32));
  weight.grad.data<float>()[4] = 2;
  bias.grad.data<float>()[1] = 3;
  linear_backward_weight(dy, x, weight);
  linear_backward_bias(dy, bias);
  EXPECT_EQ(weight.grad.data<float>()[4], 2);
  EXPECT_EQ(bias.grad.data<float>()[1], 3);
}

// Weight gradients accumulate in f32: adding 2^-10 to 1 a few times would be lost in bf16.
TEST_P(LinearTest, AccumulatesWeightGradientsInF32) {
  const Tensor one = of_doubles({1}, {1, 1}, GetParam()), small = of_doubles({0x1p-10}, {1, 1}, GetParam());
  GradSlot weight{nan_grad({1, 1})}, bias{nan_grad({1})};
  linear_backward_weight(one, one, weight);
  linear_backward_bias(one, bias);
  for (int i = 0; i < 3; ++i) {
    linear_backward_weight(small, one, weight);
    linear_backward_bias(small, bias);
  }
  EXPECT_EQ(weight.grad.data<float>()[0], 1 + 3 * 0x1p-10f);
  EXPECT_EQ(bias.grad.data<float>()[0], 1 + 3 * 0x1p-10f);
}

TEST(Linear, InputGradientComesFirstAndWeightStepsWaitWhereBackwardIsSplit) {
  const Tensor x = random({6, 4}, DType::kF32, 1), dy = random({6, 3}, DType::kF32, 2);
  Tensor w = random({3, 4}, DType::kF32, 3), b = random({3}, DType::kF32, 4);
  GradSlot weight{nan_grad({3, 4})}, bias{nan_grad({3})};
  w.set_slot(&weight);
  b.set_slot(&bias);
  Tape tape;
  Tensor in = tape.variable(x);
  Tensor y = linear(in, w, b);
  tape.backward_inputs(y, dy);
  expect_equal(tape.take_grad(in), linear_backward_input(dy, w));
  EXPECT_TRUE(weight.empty && bias.empty);
  tape.backward_weights();
  EXPECT_FALSE(weight.empty || bias.empty);
  GradSlot again{nan_grad({3, 4})};
  linear_backward_weight(dy, x, again);
  expect_equal(weight.grad, again.grad);
}

TEST(Linear, KeepsTheInputOnlyWhereTheWeightLearns) {
  const Tensor w = random({3, 4}, DType::kF32, 3);
  Tensor learning = w;
  GradSlot slot{nan_grad({3, 4})};
  learning.set_slot(&slot);
  for (bool learns : {false, true}) {
    Tape tape;
    Tensor x = tape.variable(random({2, 4}, DType::kF32, 1));
    Tensor kept_alive = x.detach();
    Tensor y = linear(x, learns ? learning : w);
    x = Tensor();
    EXPECT_EQ(kept_alive.sole_owner(), !learns);
  }
}

TEST(Linear, BiasKernelsAreRightOnEveryInstructionSetAndThreadCount) {
  const int threads = omp_get_max_threads();
  using Add = decltype(&cpu::plain::add_bias);
  using Sum = decltype(&cpu::plain::column_sum);
  std::vector<std::pair<Add, Sum>> kernels = {{&cpu::plain::add_bias, &cpu::plain::column_sum}};
  if (cpu::isa() >= cpu::Isa::kAvx2) kernels.push_back({&cpu::avx2::add_bias, &cpu::avx2::column_sum});
  if (cpu::isa() >= cpu::Isa::kAvx512) kernels.push_back({&cpu::avx512::add_bias, &cpu::avx512::column_sum});
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    for (auto [rows, columns] : {std::array<int64_t, 2>{1, 1}, {3, 127}, {130, 129}, {300, 257}}) {
      const Tensor x = random({rows, columns}, dtype, 1), bias = random({columns}, dtype, 2);
      const auto xv = to_doubles(x), bv = to_doubles(bias);
      std::vector<double> sums(columns), sum_of_x = xv;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) {
          sums[c] += xv[r * columns + c];
          sum_of_x[r * columns + c] += bv[c];
        }
      for (auto [add, sum] : kernels) {
        Tensor y = empty_like(x);
        copy(x, y);
        add(y.raw(), bias.raw(), dtype, rows, columns);
        expect_near(y, sum_of_x, tolerance(dtype));
        Tensor one = nan_grad({columns});
        omp_set_num_threads(1);
        sum(x.raw(), dtype, rows, columns, false, one.data<float>());
        expect_near(one, sums, 4 * tolerance(DType::kF32, rows));
        Tensor two = nan_grad({columns});
        omp_set_num_threads(2);
        sum(x.raw(), dtype, rows, columns, false, two.data<float>());
        expect_equal(two, one, "two threads");
        omp_set_num_threads(threads);
      }
    }
}

TEST(Linear, ErrorsSayWhatDoesNotFit) {
  const auto t = [](const Shape& s, DType d = DType::kF32) { return zeros(s, d); };
  const auto message = [&](const Tensor& x, const Tensor& w, const Tensor& b = {}) {
    return message_of<ShapeError>([&] { linear(x, w, b); });
  };
  EXPECT_CONTAINS(message(t({2, 3}), t({4, 5})), "linear: weight is f32[4,5], x is f32[2,3]; weight must be f32[out,3]");
  EXPECT_CONTAINS(message(t({2, 3}), t({4, 3}, DType::kBF16)), "weight must be f32[out,3]");
  EXPECT_CONTAINS(message(t({2, 3}), t({4, 3}), t({5})), "linear: bias is f32[5], weight is f32[4,3]; bias must be f32[4]");
  EXPECT_CONTAINS(message(t({2, 3}), t({4, 3}), t({4}, DType::kF16)), "bias must be f32[4]");
  EXPECT_CONTAINS(message(t({3}), t({4, 3})), "linear: x is f32[3]; want a floating [rows, columns]");
  EXPECT_CONTAINS(message(t({2, 3}, DType::kI32), t({4, 3})), "x is i32[2,3]");
  EXPECT_CONTAINS(message(t({2, 3}), Tensor()), "weight is undefined tensor");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear_backward_input(t({2, 4}), t({3, 4})); }),
                  "weight must be f32[4,in]");
  GradSlot slot{zeros({4, 4}, DType::kF32)};
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear_backward_weight(t({2, 4}), t({2, 3}), slot); }),
                  "the gradient is f32[4,4]; it must be f32[4,3]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear_backward_weight(t({2, 4}), t({1, 4}), slot); }),
                  "x must be f32[2,in]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear_backward_bias(t({2, 4}), slot); }), "it must be f32[4]");
}

}  // namespace
}  // namespace trireme::testing
