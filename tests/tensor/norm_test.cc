#include <cmath>

#include "tensor/cpu/norm.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/ops/layer_norm.h"
#include "tensor/ops/rms_norm.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

// Large enough to show, and so that a single column, whose variance is 0, is not magnified 300 times.
constexpr float kEps = 1e-2f;

std::vector<double> layer_norm_reference(const Doubles& in) {
  const std::vector<double>&x = in[0], &w = in[1], &b = in[2];
  const size_t d = w.size();
  std::vector<double> y(x.size());
  for (size_t t = 0; t < x.size() / d; ++t) {
    double mean = 0, variance = 0;
    for (size_t c = 0; c < d; ++c) mean += x[t * d + c] / d;
    for (size_t c = 0; c < d; ++c) variance += std::pow(x[t * d + c] - mean, 2) / d;
    for (size_t c = 0; c < d; ++c) y[t * d + c] = (x[t * d + c] - mean) / std::sqrt(variance + kEps) * w[c] + b[c];
  }
  return y;
}

std::vector<double> rms_norm_reference(const Doubles& in) {
  const std::vector<double>&x = in[0], &w = in[1];
  const size_t d = w.size();
  std::vector<double> y(x.size());
  for (size_t t = 0; t < x.size() / d; ++t) {
    double square = 0;
    for (size_t c = 0; c < d; ++c) square += x[t * d + c] * x[t * d + c] / d;
    for (size_t c = 0; c < d; ++c) y[t * d + c] = x[t * d + c] / std::sqrt(square + kEps) * w[c];
  }
  return y;
}

TRIREME_FLOAT_TESTS(NormTest);

// 15 to 17, 31: around a vector's width; 40 rows: several row blocks.
const Shape kShapes[] = {{1, 1}, {3, 7}, {2, 15}, {2, 16}, {2, 17}, {40, 31}, {5, 257}};

TEST_P(NormTest, LayerNormMatchesDoubleReferenceAndItsDifferences) {
  for (const Shape& s : kShapes) {
    // A mean of 2 shows a variance computed without taking it away.
    check_op(OpCase{.inputs = {random(s, GetParam(), 1, 1.5, 2.0), random({s[1]}, GetParam(), 2, 1.0, 0.5),
                               random({s[1]}, GetParam(), 3)},
                    .parameters = {1, 2},
                    .op = [](const Tensors& in) { return Tensors{layer_norm(in[0], in[1], in[2], kEps)}; },
                    .reference = [](const Doubles& in) { return Doubles{layer_norm_reference(in)}; },
                    .reduction = s[1],
                    .tolerance_scale = 2});  // a gradient is a difference of terms larger than itself
  }
}

TEST_P(NormTest, RmsNormMatchesDoubleReferenceAndItsDifferences) {
  for (const Shape& s : kShapes) {
    check_op(OpCase{.inputs = {random(s, GetParam(), 1, 1.5, 0.3), random({s[1]}, GetParam(), 2, 1.0, 0.5)},
                    .parameters = {1},
                    .op = [](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], kEps)}; },
                    .reference = [](const Doubles& in) { return Doubles{rms_norm_reference(in)}; },
                    .reduction = s[1],
                    .tolerance_scale = 2});  // as above
  }
}

TEST_P(NormTest, WeightMayBeAVariable) {
  const Tensor x = random({4, 9}, GetParam(), 5), w = random({9}, GetParam(), 6);
  check_op(OpCase{.inputs = {x, w},
                  .op = [](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], kEps)}; },
                  .reference = [](const Doubles& in) { return Doubles{rms_norm_reference(in)}; },
                  .reduction = 9,
                  .tolerance_scale = 2});
}

TEST_P(NormTest, RowsOfALargerTensorAreNormalisedAlike) {
  const Tensor x = random({6, 19}, GetParam(), 7), w = random({19}, GetParam(), 8), b = random({19}, GetParam(), 9);
  expect_equal(layer_norm(x.rows(2, 5), w, b, kEps), layer_norm(x, w, b, kEps).rows(2, 5));
  expect_equal(rms_norm(x.rows(2, 5), w, kEps), rms_norm(x, w, kEps).rows(2, 5));
}

TEST_P(NormTest, ZeroTokensGiveNothingAndZeroParameterGradients) {
  Tape tape;
  const Tensor x = tape.variable(empty({0, 5}, GetParam()));
  Tensor w = random({5}, GetParam(), 1), b = random({5}, GetParam(), 2);
  GradSlot dw{random({5}, DType::kF32, 3)}, db{random({5}, DType::kF32, 4)};
  w.set_slot(&dw);
  b.set_slot(&db);
  const Tensor y = layer_norm(x, w, b, kEps);
  EXPECT_EQ(y.shape(), (Shape{0, 5}));
  tape.backward(y, empty({0, 5}, GetParam()));
  expect_equal(dw.grad, zeros({5}, DType::kF32));
  expect_equal(db.grad, zeros({5}, DType::kF32));
}

TEST_P(NormTest, GradientsDoNotDependOnTheNumberOfThreads) {
  const Shape s{301, 131};  // above the threshold of a parallel region, and no multiple of a row block
  Tensors grads[3];
  for (int threads : {1, 2, 3}) {
    ThreadsOf scope(threads);
    Tape tape;
    const Tensor x = tape.variable(random(s, GetParam(), 1, 1.0, 1.0));
    Tensor w = random({s[1]}, GetParam(), 2), b = random({s[1]}, GetParam(), 3);
    GradSlot dw{empty({s[1]}, DType::kF32)}, db{empty({s[1]}, DType::kF32)};
    w.set_slot(&dw);
    b.set_slot(&db);
    const Tensor y = layer_norm(x, w, b, kEps);
    tape.backward(y, random(s, GetParam(), 4));
    grads[threads - 1] = {y.detach(), tape.take_grad(x).detach(), dw.grad, db.grad};
  }
  for (int other : {1, 2})
    for (int i = 0; i < 4; ++i) expect_equal(grads[other][i], grads[0][i]);
}

// Each build of the kernels that this processor runs, against the plain one.
TEST_P(NormTest, InstructionSetsAgree) {
  const DType dtype = GetParam();
  for (const int64_t dim : {1, 17, 130}) {
    const int64_t rows = 5;
    const Tensor x = random({rows, dim}, dtype, 1, 1.0, 0.5), w = random({dim}, dtype, 2), b = random({dim}, dtype, 3);
    const Tensor dy = random({rows, dim}, dtype, 4);
    const auto run = [&](auto forward, auto backward) {
      Tensor y = empty_like(x), dx = empty_like(x), mean = empty({rows}, DType::kF32), rstd = empty_like(mean);
      Tensor dw = empty({dim}, DType::kF32), db = empty_like(dw);
      Tensor partial = empty({cpu::column_partials(rows), 3, dim}, DType::kF32);
      cpu::NormForward f;
      f.dtype = dtype, f.rows = rows, f.dim = dim, f.eps = kEps, f.x = x.raw(), f.weight = w.raw();
      f.norm_bias = b.raw(), f.normed = y.raw(), f.mean = mean.data<float>(), f.rstd = rstd.data<float>();
      forward(f);
      cpu::NormBackward g;
      g.dtype = dtype, g.rows = rows, g.dim = dim, g.input = x.raw(), g.weight = w.raw();
      g.mean = f.mean, g.rstd = f.rstd, g.dnormed = dy.raw(), g.dinput = dx.raw();
      g.dweight = dw.data<float>(), g.dnorm_bias = db.data<float>(), g.partial = partial.data<float>();
      backward(g);
      return Tensors{y, dx, dw, db};
    };
    const Tensors plain = run(cpu::plain::norm_forward, cpu::plain::norm_backward);
    std::vector<Tensors> others;
    if (cpu::isa() >= cpu::Isa::kAvx2) others.push_back(run(cpu::avx2::norm_forward, cpu::avx2::norm_backward));
    if (cpu::isa() >= cpu::Isa::kAvx512) others.push_back(run(cpu::avx512::norm_forward, cpu::avx512::norm_backward));
    for (const Tensors& other : others)
      for (size_t i = 0; i < plain.size(); ++i) expect_near(other[i], plain[i], 2 * tolerance(dtype, dim));
  }
}

TEST(NormErrors, NameOperandAndWant) {
  const Tensor x = random({2, 4}, DType::kF32, 1), w = random({5}, DType::kF32, 2), ok = random({4}, DType::kF32, 3);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { rms_norm(x, w, kEps); }),
                  "rms_norm: weight is f32[5], x is f32[2,4]; weight must be f32[4]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { layer_norm(x, ok, w, kEps); }), "layer_norm: bias is f32[5]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { layer_norm(x, ok, Tensor(), kEps); }), "bias is undefined tensor");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { rms_norm(x, cast(ok, DType::kBF16), kEps); }), "weight is bf16[4]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { rms_norm(ok, ok, kEps); }), "x is f32[4]; it must be [rows, columns]");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { rms_norm(x, ok, 0.0f); }), "eps is 0; it must be above 0");
}

}  // namespace
}  // namespace trireme::testing
