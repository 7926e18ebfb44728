// Each loss of a task against a plain loop over doubles, and its gradient against central differences of that.
#include "model/task_losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tensor/ops/linear.h"

namespace trireme {
namespace {

using Values = std::vector<double>;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

// Logits that are no multiples of anything.
Values some_values(size_t count) {
  Values x(count);
  for (size_t i = 0; i < count; ++i) x[i] = std::sin(1.7 * static_cast<double>(i) + 0.3) * 2;
  return x;
}

Tensor tensor_from(const Values& x, const Shape& shape) {
  const std::vector<float> floats(x.begin(), x.end());
  return tensor_of<float>(floats, shape);
}

// Runs `loss` on x, and compares sum and gradient with `reference`, the sum.
void expect_loss(const Shape& shape, const std::function<TokenLoss(const Tensor&, double)>& loss,
                 const std::function<double(const Values&)>& reference, double scale = 0.37) {
  const Values x = some_values(static_cast<size_t>(shape.numel()));
  Tape tape;
  const Tensor on_tape = tape.variable(tensor_from(x, shape));
  const TokenLoss got = loss(on_tape, scale);
  EXPECT_NEAR(got.totals.get().loss, reference(x), 1e-5 * std::max(1.0, std::abs(reference(x))));
  EXPECT_NEAR(loss(tensor_from(x, shape), scale).totals.get().loss, got.totals.get().loss, 1e-12);  // on no tape
  tape.backward(got.loss, tensor_of<float>({1.0f}, {1}));
  const Tensor dx = tape.take_grad(on_tape);
  for (size_t i = 0; i < x.size(); ++i) {
    Values up = x, down = x;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    const double slope = scale * (reference(up) - reference(down)) / 2e-5;
    EXPECT_NEAR(dx.data<float>()[i], slope, 2e-5 * std::max(1.0, std::abs(slope))) << "element " << i;
  }
}

Values log_softmax(const double* x, size_t n, size_t stride = 1) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(x[i * stride]);
  Values y;
  for (size_t i = 0; i < n; ++i) y.push_back(x[i * stride] - std::log(sum));
  return y;
}

Tensor ints(std::initializer_list<int32_t> values) { return tensor_of<int32_t>(values, {static_cast<int64_t>(values.size())}); }

// torch.nn.CrossEntropyLoss(weight, label_smoothing, reduction="sum").
double cross_entropy_sum(const Values& x, const std::vector<int>& labels, size_t classes, const LossOptions& o) {
  double sum = 0;
  for (size_t r = 0; r < labels.size(); ++r) {
    if (labels[r] < 0) continue;
    const Values lp = log_softmax(&x[r * classes], classes);
    const auto weight = [&](size_t c) { return o.class_weights.empty() ? 1.0 : static_cast<double>(o.class_weights[c]); };
    double smooth = 0;
    for (size_t c = 0; c < classes; ++c) smooth -= weight(c) * lp[c];
    sum += -(1 - o.label_smoothing) * weight(labels[r]) * lp[labels[r]] +
           o.label_smoothing / static_cast<double>(classes) * smooth;
  }
  return sum;
}

TEST(TaskLosses, OneClassOfSeveralWithSmoothingAndWeights) {
  LossOptions plain, all;
  all.label_smoothing = 0.15;
  all.class_weights = {0.5f, 2.0f, 0.0f};
  for (const LossOptions& o : {plain, all})
    expect_loss({4, 3}, [&](const Tensor& x, double scale) { return class_loss(x, ints({1, -100, 2, 0}), o, scale); },
                [&](const Values& x) { return cross_entropy_sum(x, {1, -1, 2, 0}, 3, o); });
}

TEST(TaskLosses, RDropAddsTheDivergenceOfBothPassesBothWays) {
  LossOptions o;
  o.r_drop = 0.8;
  o.label_smoothing = 0.1;
  o.class_weights = {0.5f, 2.0f, 1.0f};
  expect_loss({7, 3}, [&](const Tensor& x, double scale) { return r_drop_loss(x, ints({1, 1, -100, -100, 2, 2, -100}), o, scale); },
              [&](const Values& x) {
                double sum = cross_entropy_sum(x, {1, 1, -1, -1, 2, 2, -1}, 3, o);
                for (const auto& [row, weight] : {std::pair(0, 2.0), std::pair(4, 1.0)}) {
                  const Values p = log_softmax(&x[row * 3], 3), q = log_softmax(&x[(row + 1) * 3], 3);
                  for (int c = 0; c < 3; ++c)
                    sum += o.r_drop * weight * (std::exp(p[c]) * (p[c] - q[c]) + std::exp(q[c]) * (q[c] - p[c]));
                }
                return sum;
              });
}

TEST(TaskLosses, BinaryAndSquaredLeaveOutWhatHasNoLabel) {
  const Tensor labels = tensor_of<float>({1, 0, 0.25f, kNone, 1, kNone}, {3, 2});
  const Values y = {1, 0, 0.25, NAN, 1, NAN};
  expect_loss({3, 2}, [&](const Tensor& x, double scale) { return binary_loss(x, labels, scale); },
              [&](const Values& x) {
                double sum = 0;
                for (size_t i = 0; i < 6; ++i)
                  if (!std::isnan(y[i]))
                    sum -= y[i] * std::log(1 / (1 + std::exp(-x[i]))) + (1 - y[i]) * std::log(1 / (1 + std::exp(x[i])));
                return sum;
              });
  expect_loss({3, 2}, [&](const Tensor& x, double scale) { return squared_loss(x, labels, scale); },
              [&](const Values& x) {
                double sum = 0;
                for (size_t i = 0; i < 6; ++i)
                  if (!std::isnan(y[i])) sum += (x[i] - y[i]) * (x[i] - y[i]);
                return sum;
              });
}

TEST(TaskLosses, BinaryLossOfGreatLogitsIsFinite) {
  const TokenLoss loss = binary_loss(tensor_of<float>({1000, -1000, 1000}, {1, 3}), tensor_of<float>({1, 0, 0}, {1, 3}), 1);
  EXPECT_DOUBLE_EQ(loss.totals.get().loss, 1000);
}

TEST(TaskLosses, SpansAreAmongTheTokensOfTheirSegment) {
  Segments segments;
  segments.starts = ints({0, 3, 4, 8});
  const Tensor labels = tensor_of<int32_t>({2, 1, -100, 0, 3, -100}, {3, 2});
  expect_loss({8, 2}, [&](const Tensor& x, double scale) { return span_loss(x, labels, segments, scale); },
              [](const Values& x) {
                return -log_softmax(&x[0], 3, 2)[2] - log_softmax(&x[1], 3, 2)[1] - log_softmax(&x[7], 1, 2)[0] -
                       log_softmax(&x[8], 4, 2)[3];
              });
}

TEST(TaskLosses, PairsAreFoundByCosineAmongTextsWithoutALabel) {
  const double temperature = 0.4;
  expect_loss({5, 3},
              [&](const Tensor& x, double scale) { return pair_loss(x, ints({3, -100, 1, -100, -100}), temperature, scale); },
              [&](const Values& x) {
                const auto cosine = [&](int i, int j) {
                  double ij = 0, ii = 0, jj = 0;
                  for (int d = 0; d < 3; ++d) {
                    ij += x[3 * i + d] * x[3 * j + d];
                    ii += x[3 * i + d] * x[3 * i + d];
                    jj += x[3 * j + d] * x[3 * j + d];
                  }
                  return ij / std::sqrt(ii * jj);
                };
                double sum = 0;
                for (const auto& [anchor, right] : {std::pair(0, 1), std::pair(2, 0)}) {  // of candidates 1, 3, 4
                  const double scores[] = {cosine(anchor, 1) / temperature, cosine(anchor, 3) / temperature,
                                           cosine(anchor, 4) / temperature};
                  sum -= log_softmax(scores, 3)[right];
                }
                return sum;
              });
}

TEST(TaskLosses, WithoutLabelsNothingCounts) {
  const auto expect_nothing = [](const TokenLoss& loss) { EXPECT_EQ(loss.totals.get().loss, 0); };
  const Tensor x = tensor_from(some_values(6), {3, 2});
  expect_nothing(class_loss(x, ints({-100, -100, -100}), {}, 1));
  expect_nothing(r_drop_loss(x, ints({-100, -100, -100}), {}, 1));
  expect_nothing(squared_loss(x, tensor_of<float>({kNone, kNone, kNone, kNone, kNone, kNone}, {3, 2}), 1));
  expect_nothing(pair_loss(x, ints({-100, -100, -100}), 0.1, 1));
}

TEST(TaskLosses, UnitRowsHaveLengthOneAndZeroStaysZero) {
  const Tensor unit = unit_rows(tensor_of<float>({3, 4, 0, 0, -2, 0}, {3, 2}));
  const std::vector<float> want = {0.6f, 0.8f, 0, 0, -1, 0};
  for (int i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(unit.data<float>()[i], want[i]);
}

template <class E, class F>
std::string message_of(F&& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

TEST(TaskLosses, LabelsThatDoNotFitAreNamed) {
  const Tensor x = tensor_from(some_values(6), {3, 2});
  EXPECT_EQ(message_of<Error>([&] { class_loss(x, ints({1, 2, 0}), {}, 1); }), "class_loss: label 2 of row 1 is none of 2 classes");
  EXPECT_EQ(message_of<ShapeError>([&] { class_loss(x, ints({1, 0}), {}, 1); }), "class_loss: labels are i32[2]; want i32[3]");
  EXPECT_EQ(message_of<Error>([&] { r_drop_loss(x, ints({1, 0, 0}), {}, 1); }),
            "r_drop_loss: rows 0 and 1 have labels 1 and 0; they are to be two passes of one sample");
  EXPECT_EQ(message_of<Error>([&] { r_drop_loss(x, ints({1, 1, 0}), {}, 1); }),
            "r_drop_loss: rows 2 and 3 have labels 0 and -100; they are to be two passes of one sample");
  EXPECT_EQ(message_of<Error>([&] { binary_loss(x, tensor_of<float>({1, 0, 1.5f, 0, 0, 0}, {3, 2}), 1); }),
            "binary_loss: label 1.5 is not in [0, 1]");
  EXPECT_EQ(message_of<Error>([&] { squared_loss(x, tensor_of<float>({1, 0, INFINITY, 0, 0, 0}, {3, 2}), 1); }),
            "squared_loss: a label is infinite");
  Segments segments;
  segments.starts = ints({0, 2, 3});
  EXPECT_EQ(message_of<Error>([&] { span_loss(x, tensor_of<int32_t>({0, 1, 0, 1}, {2, 2}), segments, 1); }),
            "span_loss: an answer ends at token 1 of segment 1, which has 1");
  EXPECT_EQ(message_of<Error>([&] { pair_loss(x, ints({1, 0, -100}), 1, 1); }),
            "pair_loss: text 0 of 3 has text 1 as its partner; that must be another one of the batch, without a partner of its own");
  EXPECT_EQ(message_of<Error>([&] { pair_loss(x, ints({7, -100, -100}), 1, 1); }),
            "pair_loss: text 0 of 3 has text 7 as its partner; that must be another one of the batch, without a partner of its own");
}

TEST(TaskLosses, OptionsThatTheHeadHasNotAreNamed) {
  ModelConfig config;
  config.head.kind = HeadKind::kSequenceClassification;
  config.head.labels = {"no", "yes"};
  const auto message = [&](const LossOptions& o) { return message_of<ConfigError>([&] { check_loss_options(config, o); }); };
  LossOptions all;
  all.label_smoothing = 0.1;
  all.class_weights = {1, 2};
  all.r_drop = 1;
  EXPECT_EQ(message(all), "no error");
  EXPECT_EQ(message({.label_smoothing = 1}), "label_smoothing=1; it must be in [0, 1)");
  EXPECT_EQ(message({.class_weights = {1}}), "class_weights: 1 of them for 2 labels");
  EXPECT_EQ(message({.class_weights = {1, -2}}), "class_weights: -2 is no finite number from 0 on");
  EXPECT_EQ(message({.r_drop = -1}), "r_drop=-1; it must be 0 or above");
  EXPECT_EQ(message({.temperature = 0}), "temperature=0; it must be above 0");
  config.head.kind = HeadKind::kTokenClassification;
  EXPECT_EQ(message({.label_smoothing = 0.1, .class_weights = {1, 2}}), "no error");
  EXPECT_EQ(message({.r_drop = 1}), "r_drop=1: this model's head does not choose one class for a sequence; leave it 0");
  config.head = {HeadKind::kSequenceClassification, {"a", "b"}, ProblemType::kMultiLabel, Pooling::kMean, true};
  EXPECT_EQ(message({.label_smoothing = 0.1}),
            "label_smoothing=0.1: this model's head does not choose one class of several; leave it 0");
  EXPECT_EQ(message({.class_weights = {1, 2}}),
            "class_weights: this model's head does not choose one class of several; leave them out");
}

}  // namespace
}  // namespace trireme
