#include "tensor/ops/cross_entropy.h"

#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/cpu/cross_entropy.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Reference {
  std::vector<double> lse, loss, gradient;  // gradient of the sum of losses
  double sum = 0;
};

Reference reference(const std::vector<double>& x, const std::vector<double>& labels, int64_t vocabulary) {
  Reference r;
  r.gradient.resize(x.size());
  for (size_t t = 0; t < labels.size(); ++t) {
    const double* row = x.data() + t * vocabulary;
    double maximum = -kInf, sum = 0;
    for (int64_t v = 0; v < vocabulary; ++v) maximum = std::max(maximum, row[v]);
    for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v] - maximum);
    r.lse.push_back(maximum + std::log(sum));
    const bool ignored = labels[t] == kIgnoreLabel;
    r.loss.push_back(ignored ? 0 : r.lse.back() - row[static_cast<int64_t>(labels[t])]);
    r.sum += r.loss.back();
    for (int64_t v = 0; v < vocabulary; ++v)
      r.gradient[t * vocabulary + v] = ignored ? 0 : std::exp(row[v] - r.lse.back()) - (v == labels[t]);
  }
  return r;
}

// Random labels, every fourth one ignored from the second on.
Tensor some_labels(int64_t tokens, int64_t vocabulary, uint64_t seed) {
  Tensor labels = random_ids({tokens}, vocabulary, seed);
  for (int64_t t = 1; t < tokens; t += 4) labels.data<int32_t>()[t] = kIgnoreLabel;
  return labels;
}

Tensor clone(const Tensor& t) {
  Tensor c = empty_like(t);
  copy(t, c);
  return c;
}

TRIREME_FLOAT_TESTS(CrossEntropyTest);

TEST_P(CrossEntropyTest, MatchesDoubleReferenceAndItsGradient) {
  for (auto [tokens, vocabulary] : {std::array<int64_t, 2>{1, 1}, {1, 2}, {3, 7}, {5, 15}, {4, 17}, {7, 31}, {2, 257}}) {
    const Tensor labels = some_labels(tokens, vocabulary, 5);
    const auto label_values = to_doubles(labels);
    check_op(OpCase{.inputs = {random({tokens, vocabulary}, GetParam(), 3, 2.0), labels},
                    .op = [](const Tensors& t) { return Tensors{cross_entropy(t[0], t[1], 0.25f).loss}; },
                    .reference = [&, n = vocabulary](const Doubles& d) {
                      return Doubles{{0.25 * reference(d[0], label_values, n).sum}};
                    },
                    .reduction = tokens});
  }
}

TEST_P(CrossEntropyTest, MatchesDoubleReferenceAtVocabulariesOfSeveralBlocks) {
  for (int64_t vocabulary : {1023, 1024, 1025, 5003}) {
    const int64_t tokens = 9;
    // A rising trend, so that each block has a greater maximum than those before.
    Tensor x = random({tokens, vocabulary}, GetParam(), 4, 3.0);
    auto values = to_doubles(x);
    for (size_t i = 0; i < values.size(); ++i) values[i] += static_cast<double>(i % vocabulary) * 4 / vocabulary;
    x = of_doubles(values, x.shape(), GetParam());
    const Tensor labels = some_labels(tokens, vocabulary, 6);
    const Reference want = reference(to_doubles(x), to_doubles(labels), vocabulary);
    Tape tape;
    const Tensor in = tape.variable(x);
    const CrossEntropy got = cross_entropy(in, labels, 0.5f);
    EXPECT_NEAR(got.sum, want.sum, 2e-6 * want.sum) << vocabulary;
    EXPECT_NEAR(got.loss.data<float>()[0], 0.5 * want.sum, 2e-6 * want.sum);
    EXPECT_EQ(got.num_tokens, 7);
    tape.backward(got.loss, tensor_of<float>({3}, {1}));
    auto gradient = want.gradient;
    for (double& g : gradient) g *= 1.5;
    expect_near(tape.take_grad(in), gradient, tolerance(GetParam()));
  }
}

// The chain of pieces over a vocabulary cut in three uneven parts, the last all padding but one column.
TEST_P(CrossEntropyTest, PiecesOfASplitVocabularyAddUpToTheWhole) {
  const int64_t tokens = 6, vocabulary = 23, part = 11;  // 11 + 11 + 1, and 10 columns of padding
  const Tensor x = random({tokens, vocabulary}, GetParam(), 7, 3.0), labels = some_labels(tokens, vocabulary, 8);
  labels.data<int32_t>()[0] = 22;
  labels.data<int32_t>()[2] = 11;
  labels.data<int32_t>()[3] = 10;
  const auto values = to_doubles(x), label_values = to_doubles(labels);
  const Reference want = reference(values, label_values, vocabulary);

  Tensors parts;
  std::vector<int64_t> valid;
  std::vector<float> maximum(tokens, -std::numeric_limits<float>::infinity()), sum(tokens), target(tokens);
  for (int r = 0; r < 4; ++r) {  // the fourth part has no valid column at all
    valid.push_back(std::clamp<int64_t>(vocabulary - part * r, 0, part));
    std::vector<double> local(tokens * part, 1e4);  // padding must not count, whatever it holds
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t v = 0; v < valid[r]; ++v) local[t * part + v] = values[t * vocabulary + part * r + v];
    parts.push_back(of_doubles(local, {tokens, part}, GetParam()));
    const Tensor m = row_max(parts[r], valid[r]);
    for (int64_t t = 0; t < tokens; ++t) {
      maximum[t] = std::max(maximum[t], m.data<float>()[t]);
      if (r == 3) { EXPECT_EQ(m.data<float>()[t], -std::numeric_limits<float>::infinity()); }
    }
  }
  const Tensor whole_max = tensor_of<float>(std::span<const float>(maximum), {tokens});
  for (int r = 0; r < 4; ++r) {
    Tensor s = empty({tokens}, DType::kF32), g = empty({tokens}, DType::kF32);
    row_sum_exp_and_target(parts[r], whole_max, labels, part * r, valid[r], s, g);
    for (int64_t t = 0; t < tokens; ++t) {
      sum[t] += s.data<float>()[t];
      target[t] += g.data<float>()[t];
    }
  }
  const Tensor whole_sum = tensor_of<float>(std::span<const float>(sum), {tokens});
  std::vector<double> loss, gradient(tokens * vocabulary);
  for (int64_t t = 0; t < tokens; ++t)
    loss.push_back(labels.data<int32_t>()[t] < 0 ? 0 : std::log(static_cast<double>(sum[t])) + maximum[t] - target[t]);
  expect_near(loss, want.loss, 4e-6);
  auto scaled = want.gradient;
  for (double& g : scaled) g *= -0.5;
  for (int r = 0; r < 4; ++r) {
    softmax_minus_onehot(parts[r], whole_max, whole_sum, labels, part * r, valid[r], -0.5f);
    const auto got = to_doubles(parts[r]);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t v = 0; v < part; ++v) {
        if (v < valid[r])
          gradient[t * vocabulary + part * r + v] = got[t * part + v];
        else
          EXPECT_EQ(got[t * part + v], 0);
      }
  }
  expect_near(gradient, scaled, tolerance(GetParam()));
}

TEST_P(CrossEntropyTest, ArgmaxIsTheFirstOfTheGreatest) {
  for (int64_t columns : {1, 2, 17, 1024, 2051}) {
    const Tensor x = random({5, columns}, GetParam(), 9);
    for (int64_t valid : {columns, columns - columns / 2}) {
      const RowArgmax got = row_argmax(x, valid);
      const auto values = to_doubles(x);
      for (int64_t t = 0; t < 5; ++t) {
        int64_t best = 0;
        for (int64_t v = 1; v < valid; ++v)
          if (values[t * columns + v] > values[t * columns + best]) best = v;
        EXPECT_EQ(got.index.data<int32_t>()[t], best);
        EXPECT_EQ(got.maximum.data<float>()[t], values[t * columns + best]);
      }
      expect_equal(got.maximum, row_max(x, valid));
    }
  }
  const Tensor none = of_doubles({-kInf, -kInf}, {1, 2}, GetParam());
  EXPECT_EQ(row_argmax(none, 2).index.data<int32_t>()[0], -1);
  EXPECT_EQ(row_argmax(none, 0).index.data<int32_t>()[0], -1);
}

TEST_P(CrossEntropyTest, CountsTokensAndCorrectOnes) {
  const Tensor x = of_doubles({1, 3, 2, /**/ 5, 1, 1, /**/ 0, 0, 7, /**/ 2, 2, 1}, {4, 3}, GetParam());
  const CrossEntropy got = cross_entropy(x, tensor_of<int32_t>({1, 1, kIgnoreLabel, 1}, {4}), 1);
  EXPECT_EQ(got.num_tokens, 3);
  EXPECT_EQ(got.num_correct, 2);
}

TEST_P(CrossEntropyTest, LargeLogitsNeitherOverflowNorLoseTheDifference) {
  const Tensor x = of_doubles({30000, 29998, -30000}, {1, 3}, GetParam());
  const auto values = to_doubles(x);
  const double want = std::log1p(std::exp(values[1] - values[0])) + values[0] - values[1];
  EXPECT_NEAR(cross_entropy(x, tensor_of<int32_t>({1}, {1}), 1).sum, want, 1e-6 * std::max(1.0, want));
}

TEST_P(CrossEntropyTest, MaskedLogitsHaveNoProbabilityAndNanIsNeverHidden) {
  const double nan = std::nan("");
  const Tensor masked = of_doubles({-kInf, 1, 2, -kInf}, {1, 4}, GetParam());
  Tape tape;
  const Tensor in = tape.variable(masked);
  const CrossEntropy got = cross_entropy(in, tensor_of<int32_t>({2}, {1}), 1);
  EXPECT_NEAR(got.sum, std::log1p(std::exp(-1.0)), 1e-6);
  tape.backward(got.loss, tensor_of<float>({1}, {1}));
  const auto gradient = to_doubles(tape.take_grad(in));
  EXPECT_EQ(gradient[0], 0);
  EXPECT_EQ(gradient[3], 0);
  for (const auto& row : {std::vector<double>{1, nan, 2, 0}, {nan, nan, nan, nan}, {-kInf, -kInf, -kInf, -kInf},
                          {1, kInf, 2, 3}})
    EXPECT_TRUE(std::isnan(cross_entropy(of_doubles(row, {1, 4}, GetParam()), tensor_of<int32_t>({0}, {1}), 1).sum));
  // An ignored token is not looked at.
  EXPECT_EQ(cross_entropy(of_doubles({nan}, {1, 1}, GetParam()), tensor_of<int32_t>({kIgnoreLabel}, {1}), 1).sum, 0);
}

TEST_P(CrossEntropyTest, NoTokensGiveAZeroLoss) {
  Tape tape;
  const Tensor x = tape.variable(empty({0, 5}, GetParam()));
  const CrossEntropy got = cross_entropy(x, empty({0}, DType::kI32), 2);
  EXPECT_EQ(got.loss.data<float>()[0], 0);
  EXPECT_EQ(got.num_tokens, 0);
  tape.backward(got.loss, tensor_of<float>({1}, {1}));
  EXPECT_EQ(tape.take_grad(x).shape(), (Shape{0, 5}));
  EXPECT_EQ(row_max(empty({0, 5}, GetParam()), 5).shape(), (Shape{0}));
}

TEST_P(CrossEntropyTest, ThreadsChangeNoBit) {
  const int threads = omp_get_max_threads();
  const Tensor x = random({37, 2003}, GetParam(), 10, 2.0), labels = some_labels(37, 2003, 11);
  const auto run = [&](int n) {
    omp_set_num_threads(n);
    Tape tape;
    const Tensor in = tape.variable(x);
    const CrossEntropy loss = cross_entropy(in, labels, 0.1f);
    tape.backward(loss.loss, tensor_of<float>({1}, {1}));
    omp_set_num_threads(threads);
    return std::pair(loss.sum, tape.take_grad(in));
  };
  const auto one = run(1), two = run(2), three = run(3);
  EXPECT_EQ(one.first, two.first);
  EXPECT_EQ(one.first, three.first);
  expect_equal(two.second, one.second);
  expect_equal(three.second, one.second);
}

// Each instruction set that this processor has against doubles, through the raw kernels.
TEST_P(CrossEntropyTest, KernelsAreRightOnEveryInstructionSet) {
  struct Kernels {
    decltype(&cpu::plain::cross_entropy_forward) forward;
    decltype(&cpu::plain::softmax_minus_onehot) gradient;
    decltype(&cpu::plain::row_sum_exp_and_target) sums;
    decltype(&cpu::plain::row_argmax) argmax;
  };
  std::vector<Kernels> all = {{&cpu::plain::cross_entropy_forward, &cpu::plain::softmax_minus_onehot,
                               &cpu::plain::row_sum_exp_and_target, &cpu::plain::row_argmax}};
  if (cpu::isa() >= cpu::Isa::kAvx2)
    all.push_back({&cpu::avx2::cross_entropy_forward, &cpu::avx2::softmax_minus_onehot,
                   &cpu::avx2::row_sum_exp_and_target, &cpu::avx2::row_argmax});
  if (cpu::isa() >= cpu::Isa::kAvx512)
    all.push_back({&cpu::avx512::cross_entropy_forward, &cpu::avx512::softmax_minus_onehot,
                   &cpu::avx512::row_sum_exp_and_target, &cpu::avx512::row_argmax});
  for (int64_t n : {1, 7, 8, 9, 15, 16, 17, 1041}) {
    const int64_t tokens = 6;
    const Tensor x = random({tokens, n}, GetParam(), 12, 3.0), labels = some_labels(tokens, n, 13);
    const auto values = to_doubles(x);
    const Reference want = reference(values, to_doubles(labels), n);
    for (const Kernels& k : all) {
      std::vector<float> lse(tokens), maximum(tokens), sum(tokens), target(tokens);
      std::vector<double> loss(tokens);
      std::vector<uint8_t> correct(tokens);
      std::vector<int32_t> index(tokens);
      const int32_t* label = labels.data<int32_t>();
      k.forward(x.raw(), GetParam(), tokens, n, label, lse.data(), loss.data(), correct.data());
      expect_near(loss, want.loss, 2e-6, "loss");
      k.argmax(x.raw(), GetParam(), tokens, n, n, maximum.data(), index.data());
      k.sums(x.raw(), GetParam(), tokens, n, n, maximum.data(), label, 0, sum.data(), target.data());
      for (int64_t t = 0; t < tokens; ++t) {
        EXPECT_NEAR(maximum[t] + std::log(sum[t]), want.lse[t], 4e-6);
        EXPECT_EQ(maximum[t], *std::max_element(&values[t * n], &values[t * n] + n));
        EXPECT_EQ(values[t * n + index[t]], maximum[t]);
        EXPECT_EQ(target[t], label[t] < 0 ? 0 : values[t * n + label[t]]);
        EXPECT_EQ(correct[t], label[t] >= 0 && target[t] == maximum[t]);
      }
      Tensor g = clone(x);
      k.gradient(g.raw(), g.raw(), GetParam(), tokens, n, n, maximum.data(), sum.data(), label, 0, 1);
      expect_near(g, want.gradient, tolerance(GetParam()), "gradient");
    }
  }
}

TEST(CrossEntropy, ErrorsNameTheTokenAndTheLabel) {
  const auto message = [](const Tensor& x, const Tensor& labels) {
    return message_of<ShapeError>([&] { cross_entropy(x, labels, 1); });
  };
  const Tensor x = zeros({3, 5}, DType::kF32);
  EXPECT_CONTAINS(message(x, tensor_of<int32_t>({0, 5, 1}, {3})),
                  "cross_entropy: label 5 of token 1 is outside the vocabulary of 5; want 0 to 4, or -100 for none");
  EXPECT_CONTAINS(message(x, tensor_of<int32_t>({0, 1, -1}, {3})), "label -1 of token 2");
  EXPECT_CONTAINS(message(x, tensor_of<int32_t>({0, 1}, {2})),
                  "labels is i32[2], logits are f32[3,5]; want i32[3]");
  EXPECT_CONTAINS(message(x, tensor_of<int64_t>({0, 1, 2}, {3})), "labels is i64[3]");
  EXPECT_CONTAINS(message(zeros({3}, DType::kF32), tensor_of<int32_t>({0, 1, 2}, {3})),
                  "logits are f32[3]; want a floating [tokens, vocabulary]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { row_max(x, 6); }), "row_max: 6 valid columns of f32[3,5]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { row_argmax(x, -1); }), "-1 valid columns");
  const Tensor three = zeros({3}, DType::kF32), two = zeros({2}, DType::kF32), labels = zeros({3}, DType::kI32);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { row_sum_exp_and_target(x, two, labels, 0, 5, three, three); }),
                  "maximum is f32[2]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { row_sum_exp_and_target(x, three, labels, 0, 5, three, two); }),
                  "target is f32[2]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { softmax_minus_onehot(x, three, two, labels, 0, 5, 1); }),
                  "sum_exp is f32[2]");
}

}  // namespace
}  // namespace trireme::testing
