#include "tensor/ops/residual.h"

#include <cmath>

#include "tensor/ops/layer_norm.h"
#include "tensor/ops/rms_norm.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

// Large enough to show, and so that a single column, whose variance is 0, is not magnified 300 times.
constexpr float kEps = 1e-2f;

DropoutRows rows_of(float p, int64_t tokens, int64_t first_column = 6) {
  DropoutRows rows{{p, 77, 21}, Tensor(), first_column};
  std::vector<int64_t> keys(tokens);
  for (int64_t t = 0; t < tokens; ++t) keys[t] = (int64_t{9} << 20) + 5 * t;
  if (p > 0) rows.row_keys = tensor_of<int64_t>(keys, {tokens});
  return rows;
}

DropoutRows there(DropoutRows rows) {
  rows.row_keys = testing::there(rows.row_keys);
  return rows;
}

// residual + dropout(x + bias); bias may be empty.
std::vector<double> sum_reference(const std::vector<double>& residual, const std::vector<double>& x,
                                  const std::vector<double>& bias, const DropoutRows& rows, int64_t dim) {
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t t = static_cast<int64_t>(i) / dim, c = static_cast<int64_t>(i) % dim, column = rows.first_column + c;
    double keep = 1;
    if (rows.rule.active()) {
      const uint32_t word = philox(rows.rule.seed, rows.rule.stream, rows.row_keys.data<int64_t>()[t],
                                   static_cast<uint32_t>(column / 4))[column % 4];
      keep = word < rows.rule.threshold() ? 0 : 1 / (1.0 - rows.rule.p);
    }
    y[i] = residual[i] + keep * (x[i] + (bias.empty() ? 0 : bias[c]));
  }
  return y;
}

std::vector<double> norm_reference(const std::vector<double>& x, const std::vector<double>& w,
                                   const std::vector<double>& b, bool centered) {
  const size_t d = w.size();
  std::vector<double> y(x.size());
  for (size_t t = 0; t < x.size() / d; ++t) {
    double mean = 0, square = 0;
    for (size_t c = 0; centered && c < d; ++c) mean += x[t * d + c] / d;
    for (size_t c = 0; c < d; ++c) square += std::pow(x[t * d + c] - mean, 2) / d;
    for (size_t c = 0; c < d; ++c)
      y[t * d + c] = (x[t * d + c] - mean) / std::sqrt(square + kEps) * w[c] + (centered ? b[c] : 0);
  }
  return y;
}

TRIREME_FLOAT_TESTS(ResidualTest);

const Shape kShapes[] = {{1, 1}, {3, 7}, {2, 17}, {37, 31}, {2, 521}};

TEST_P(ResidualTest, AddMatchesAndGivesBothTheGradient) {
  for (const Shape& s : kShapes)
    check_op(OpCase{.inputs = {random(s, GetParam(), 1), random(s, GetParam(), 2)},
                    .op = [](const Tensors& in) { return Tensors{add(in[0], in[1])}; },
                    .reference =
                        [](const Doubles& in) {
                          std::vector<double> y = in[0];
                          for (size_t i = 0; i < y.size(); ++i) y[i] += in[1][i];
                          return Doubles{y};
                        },
                    .max_checked = 8});
}

TEST_P(ResidualTest, AddOfATensorToItselfDoublesTheGradient) {
  Tape tape;
  const Tensor x = tape.variable(random({2, 3}, GetParam(), 1)), dy = random({2, 3}, GetParam(), 2);
  tape.backward(add(x, x), dy);
  auto want = to_doubles(dy);
  for (double& v : want) v *= 2;
  expect_near(tape.take_grad(x), want, tolerance(GetParam()));
}

TEST_P(ResidualTest, AddBiasDropoutMatchesDoubleReferenceAndItsDifferences) {
  for (const Shape& s : kShapes)
    for (const float p : {0.0f, 0.4f})
      for (const bool with_bias : {false, true}) {
        const DropoutRows rows = rows_of(p, s[0]);
        check_op(OpCase{.inputs = {random(s, GetParam(), 1), random(s, GetParam(), 2, 1.0, 2.0),
                                   with_bias ? random({s[1]}, GetParam(), 3) : Tensor()},
                        .parameters = with_bias ? std::vector<int>{2} : std::vector<int>{},
                        .op = [&](const Tensors& in) { return Tensors{add_bias_dropout(in[0], in[1], in[2], there(rows))}; },
                        .reference =
                            [&](const Doubles& in) { return Doubles{sum_reference(in[0], in[1], in[2], rows, s[1])}; },
                        .max_checked = 12});
      }
}

TEST_P(ResidualTest, ResidualLayerNormMatchesWithGradientsOfEitherOrBothOutputs) {
  for (const Shape& s : kShapes)
    for (const float p : {0.0f, 0.4f})
      for (const std::vector<int>& unused : {std::vector<int>{}, {0}, {1}}) {
        const DropoutRows rows = rows_of(p, s[0]);
        const bool normed_used = unused != std::vector<int>{1};
        check_op(OpCase{
            .inputs = {random(s, GetParam(), 1), random(s, GetParam(), 2, 1.0, 1.0), random({s[1]}, GetParam(), 3),
                       random({s[1]}, GetParam(), 4), random({s[1]}, GetParam(), 5)},
            // Where no gradient reaches the norm, none reaches its parameters, and their slots stay as they are.
            .parameters = normed_used ? std::vector<int>{2, 3, 4} : std::vector<int>{2},
            .constants = normed_used ? std::vector<int>{} : std::vector<int>{3, 4},
            .op =
                [&](const Tensors& in) {
                  const Normed n = residual_layer_norm(in[0], in[1], in[2], there(rows), in[3], in[4], kEps);
                  return Tensors{n.sum, n.normed};
                },
            .reference =
                [&](const Doubles& in) {
                  const auto sum = sum_reference(in[0], in[1], in[2], rows, s[1]);
                  return Doubles{sum, norm_reference(sum, in[3], in[4], true)};
                },
            .reduction = s[1],
            .tolerance_scale = 6,  // the norm is that of the rounded sum, and dx of the rounded gradient of it
            .unused_outputs = unused,
            .max_checked = 12});
      }
}

TEST_P(ResidualTest, ResidualRmsNormMatchesWithGradientsOfEitherOrBothOutputs) {
  for (const Shape& s : kShapes)
    for (const float p : {0.0f, 0.4f})
      for (const std::vector<int>& unused : {std::vector<int>{}, {0}}) {
        const DropoutRows rows = rows_of(p, s[0]);
        check_op(OpCase{.inputs = {random(s, GetParam(), 1), random(s, GetParam(), 2, 1.0, 1.0), Tensor(),
                                   random({s[1]}, GetParam(), 4)},
                        .parameters = {3},
                        .op =
                            [&](const Tensors& in) {
                              const Normed n = residual_rms_norm(in[0], in[1], in[2], there(rows), in[3], kEps);
                              return Tensors{n.sum, n.normed};
                            },
                        .reference =
                            [&](const Doubles& in) {
                              const auto sum = sum_reference(in[0], in[1], in[2], rows, s[1]);
                              return Doubles{sum, norm_reference(sum, in[3], {}, false)};
                            },
                        .reduction = s[1],
                        .tolerance_scale = 6,  // as above
                        .unused_outputs = unused,
                        .max_checked = 12});
      }
}

TEST_P(ResidualTest, FusedAndUnfusedGiveTheSameBits) {
  const Shape s{33, 70};
  const Tensor r = random(s, GetParam(), 1), x = random(s, GetParam(), 2), bias = random({s[1]}, GetParam(), 3),
               w = random({s[1]}, GetParam(), 4), b = random({s[1]}, GetParam(), 5);
  const DropoutRows rows = rows_of(0.3f, s[0]);
  const Tensor sum = add_bias_dropout(r, x, bias, rows);
  const Normed layer = residual_layer_norm(r, x, bias, rows, w, b, kEps);
  expect_equal(layer.sum, sum);
  expect_equal(layer.normed, layer_norm(sum, w, b, kEps));
  expect_equal(residual_rms_norm(r, x, bias, rows, w, kEps).normed, rms_norm(sum, w, kEps));
}

TEST_P(ResidualTest, GradientsDoNotDependOnTheNumberOfThreads) {
  const Shape s{203, 259};
  const DropoutRows rows = rows_of(0.2f, s[0]);
  std::vector<Tensors> runs;
  for (int threads : {1, 3}) {
    ThreadsOf scope(threads);
    Tape tape;
    const Tensor r = tape.variable(random(s, GetParam(), 1)), x = tape.variable(random(s, GetParam(), 2));
    Tensor bias = random({s[1]}, GetParam(), 3), w = random({s[1]}, GetParam(), 4);
    GradSlot dbias{empty({s[1]}, DType::kF32)}, dw{empty({s[1]}, DType::kF32)};
    bias.set_slot(&dbias);
    w.set_slot(&dw);
    const Normed n = residual_rms_norm(r, x, bias, rows, w, kEps);
    tape.backward(n.normed, random(s, GetParam(), 4));
    runs.push_back({n.sum.detach(), n.normed.detach(), tape.take_grad(r), tape.take_grad(x), dbias.grad, dw.grad});
  }
  for (size_t i = 0; i < runs[0].size(); ++i) expect_equal(runs[1][i], runs[0][i]);
}

TEST(ResidualErrors, NameOperands) {
  const Tensor a = random({2, 4}, DType::kF32, 1), b = random({3, 4}, DType::kF32, 2);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { add(a, b); }),
                  "add: a is f32[2,4], b is f32[3,4]; they must have one shape and dtype");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { add_bias_dropout(a, cast(a, DType::kF16), Tensor(), {}); }),
                  "add_bias_dropout: residual is f32[2,4], x is f16[2,4]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { add_bias_dropout(a, a, random({5}, DType::kF32, 1), {}); }),
                  "bias is f32[5]");
}

}  // namespace
}  // namespace trireme::testing
