// What the ops do where their tensors are on a device, beside what their own tests show on test_device(): copies, sums that
// the processor reads, optimizer steps, and operands that are not on one device.
#include <cmath>

#include "tensor/gemm_table.h"
#include "tensor/on_device.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/linear.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual.h"
#include "tensor/ops/rope.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

TRIREME_FLOAT_TESTS(DeviceOpsTest);

constexpr Device kOther{DeviceKind::kCuda, 1};

Tensor host_copy(const Tensor& t) {
  Tensor y = empty_like(t);
  copy(t, y);
  return y;
}

TEST_P(DeviceOpsTest, CopiesThereAndBackKeepEveryBit) {
  for (const int64_t n : {1, 3, 1000, 300000}) {  // by launch, by one copy, and in pieces
    const Tensor x = random({n}, GetParam(), 1), y = there(x);
    EXPECT_EQ(y.device(), test_device());
    expect_equal(to_device(y, Device::cpu()), x);
    const Tensor again = empty_like(y);
    copy(y, again);
    expect_equal(again, x);
    expect_equal(to_device(y.rows(n / 2, n), Device::cpu()), x.rows(n / 2, n));
  }
  expect_equal(zeros({37}, GetParam(), test_device()), zeros({37}, GetParam()));
  EXPECT_EQ(there(empty({0, 3}, GetParam())).numel(), 0);
}

TEST_P(DeviceOpsTest, CastEqualsTheCpus) {
  const Tensor x = random({5, 77}, GetParam(), 2);
  for (const DType to : {DType::kF32, DType::kBF16, DType::kF16}) expect_equal(cast(there(x), to), cast(x, to));
}

TEST_P(DeviceOpsTest, SumsOfSquaresComeBack) {
  for (const int64_t n : {0, 1, 1000, 40000}) {
    const Tensor x = random({n}, GetParam(), 3);
    EXPECT_NEAR(sum_of_squares(there(x)), sum_of_squares(x), 1e-12 * static_cast<double>(n));
  }
}

TEST_P(DeviceOpsTest, OneElementThatIsNotFiniteIsFound) {
  std::vector<double> values(5000, 1.5);
  EXPECT_TRUE(all_finite(there(of_doubles(values, {5000}, GetParam()))));
  for (const double bad : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    values[4999] = bad;
    EXPECT_FALSE(all_finite(there(of_doubles(values, {5000}, GetParam()))));
  }
}

TEST_P(DeviceOpsTest, WholeArrayOpsEqualTheCpus) {
  const Tensor x = random({7, 33}, GetParam(), 4), y = random({7, 33}, GetParam(), 5);
  const auto both = [&](auto&& op) {
    const Tensor a = host_copy(y), b = there(host_copy(y));
    op(x, a);
    op(there(x), b);
    expect_equal(b, a);
  };
  both([](const Tensor&, const Tensor& to) { scale_in_place(to, 0.375f); });
  both([](const Tensor&, const Tensor& to) { fill(to, -2.5f); });
  both([](const Tensor& from, const Tensor& to) { axpy(0.5f, from, to); });
  both([](const Tensor& from, const Tensor& to) { accumulate_into(to, from); });
  expect_equal(copy_columns(there(x), 3, 20), copy_columns(x, 3, 20));
}

TEST_P(DeviceOpsTest, OptimizerStepsEqualTheCpus) {
  const int64_t n = 1003;
  const auto step = [&](bool on_device, bool adam) {
    const auto move = [&](const Tensor& t) { return on_device ? there(t) : host_copy(t); };
    const Tensor param = move(random({n}, DType::kF32, 6)), grad = move(random({n}, DType::kF32, 7)),
                 m = move(random({n}, DType::kF32, 8)), v = move(random({n}, DType::kF32, 9, 0.01, 1.0)),
                 rounded = move(random({n}, GetParam(), 10));
    const OptimizerSpan span{param.data<float>(), rounded.raw(), GetParam(), grad.data<float>(), n, param.device()};
    if (adam)
      adamw_step(span, m.data<float>(), v.data<float>(), {.lr = 0.01, .weight_decay = 0.1, .grad_scale = 0.5, .step = 3});
    else
      sgd_step(span, m.data<float>(), {.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true});
    return Tensors{param, m, v, rounded};
  };
  for (const bool adam : {true, false}) {
    const Tensors want = step(false, adam), got = step(true, adam);
    for (size_t i = 0; i < want.size(); ++i)
      expect_near(got[i], want[i], i == 3 ? tolerance(GetParam()) : 1e-6, text("array ", i, adam ? " of adamw" : " of sgd"));
  }
}

TEST_P(DeviceOpsTest, TheLossOfASplitVocabularyEqualsTheCpus) {
  const int64_t tokens = 9, vocabulary = 37;
  const Tensor x = random({tokens, vocabulary}, GetParam(), 11, 2.0), labels = random_ids({tokens}, vocabulary, 12);
  labels.data<int32_t>()[4] = kIgnoreLabel;
  const auto run = [&](const Tensor& logits, const Tensor& label) {
    VocabularyTotals totals(logits.device());
    const Tensor sums = empty({2 * tokens}, DType::kF32, logits.device());
    const Tensor sum_exp = sums.rows(0, tokens), target = sums.rows(tokens, 2 * tokens);
    const Tensor maximum = row_max(logits, 36);
    row_sum_exp_and_target(logits, maximum, label, 0, 36, sum_exp, target);
    totals.add(maximum, sum_exp, target, label);
    totals.add(maximum, sum_exp, target, label);
    softmax_minus_onehot(logits, maximum, sum_exp, label, 0, 36, 0.25f);
    return std::pair(totals.get(), logits);
  };
  const auto [want, want_dx] = run(host_copy(x), labels);
  const auto [got, got_dx] = run(there(x), there(labels));
  EXPECT_EQ(want.tokens, 16);
  EXPECT_EQ(got.tokens, 16);
  EXPECT_NEAR(got.loss, want.loss, 1e-5 * want.loss);
  expect_near(got_dx, want_dx, tolerance(GetParam()));
  const RowArgmax here = row_argmax(x, 30), away = row_argmax(there(x), 30);
  expect_equal(away.index, here.index);
  expect_equal(away.maximum, here.maximum);
}

TEST_P(DeviceOpsTest, CrossEntropyCountsWhatTheCpuCounts) {
  const Tensor x = random({40, 9}, GetParam(), 13), labels = random_ids({40}, 9, 14);
  labels.data<int32_t>()[7] = kIgnoreLabel;
  const CrossEntropy want = cross_entropy(x, labels, 0.5f), got = cross_entropy(there(x), there(labels), 0.5f);
  EXPECT_EQ(got.num_tokens, want.num_tokens);
  EXPECT_EQ(got.num_correct, want.num_correct);
  EXPECT_NEAR(got.sum, want.sum, 1e-5 * want.sum);
  labels.data<int32_t>()[3] = 9;
  EXPECT_CONTAINS(message_of<ShapeError>([&] { cross_entropy(there(x), there(labels), 1); }), "label 9 of token 3");
}

TEST(DeviceOps, IdsOnADeviceAreChecked) {
  check_ids(there(tensor_of<int32_t>({0, 5, 3}, {3})), 6);
  EXPECT_CONTAINS(message_of<Error>([] { check_ids(there(tensor_of<int32_t>({0, 6, 3}, {3})), 6); }),
                  "token id 6 at position 1");
}

TEST(DeviceOps, OperandsOfTwoDevicesAreRefusedByName) {
  const auto f32 = [](const Shape& s) { return random(s, DType::kF32, 1); };
  const auto message = [](auto&& fn) { return message_of<ShapeError>(fn); };
  EXPECT_CONTAINS(message([&] { linear(there(f32({2, 3})), f32({4, 3})); }),
                  "linear: weight is on cpu, x on cuda:0; they must be on one device");
  EXPECT_CONTAINS(message([&] { linear(there(f32({2, 3})), there(f32({4, 3})), f32({4})); }), "linear: bias is on cpu, x on cuda:0");
  EXPECT_CONTAINS(message([&] { add(there(f32({2, 3})), f32({2, 3})); }), "add: a is on cuda:0, b on cpu");
  EXPECT_CONTAINS(message([&] { embedding(random_ids({2}, 3, 1), there(f32({3, 4}))); }), "embedding: ids is on cpu, weight on cuda:0");
  EXPECT_CONTAINS(message([&] { cross_entropy(there(f32({2, 3})), random_ids({2}, 3, 1), 1); }),
                  "cross_entropy: labels is on cpu, logits on cuda:0");
  EXPECT_CONTAINS(message([&] { rope(there(f32({2, 12})), {1, 1, 4}, there(random_ids({2}, 3, 1)), RopeTable(9, 4)); }),
                  "rope: the table is on cpu, qkv on cuda:0");
  GradSlot slot{f32({4, 3})};
  EXPECT_CONTAINS(message([&] { linear_backward_weight(there(f32({2, 4})), there(f32({2, 3})), slot); }),
                  "linear_backward_weight: the gradient is on cpu, dy on cuda:0");
}

TEST(DeviceOps, ATensorOfADeviceThatIsNotSelectedIsRefused) {
  const Tensor x = Tensor::from_memory(nullptr, {2, 3}, DType::kF32, kOther, std::make_shared<int>(0));
  EXPECT_CONTAINS(message_of<ConfigError>([&] { fill(x, 1); }), "a tensor is on cuda:1, but this thread computes on cuda:0");
}

TEST(DeviceOps, F32ProductsInFewerBitsAreRefused) {
  if (!available(MatmulPrecision::kBf16x3)) GTEST_SKIP() << "this processor has no AMX";
  GemmTable table;
  const GemmTable before = gemm_table();
  table.set_precision(MatmulPrecision::kBf16x3);
  use_gemm_table(table);
  const Tensor x = there(random({2, 3}, DType::kF32, 1)), w = there(random({4, 3}, DType::kF32, 2));
  EXPECT_CONTAINS(message_of<ConfigError>([&] { linear(x, w); }), "precision bf16x3 are computed on the cpu only; use f32, or tf32");
  linear(cast(x, DType::kBF16), cast(w, DType::kBF16));  // it says nothing of these
  use_gemm_table(before);
}

// The table's precision reaches every product of a layer: bits change, by less than tf32's rounding does.
TEST(DeviceOps, F32ProductsAreInTf32WhereAskedFor) {
  const GemmTable before = gemm_table();
  GemmTable in_tf32;
  in_tf32.set_precision(MatmulPrecision::kTf32);
  const Tensor x = there(random({8, 64}, DType::kF32, 1)), w = there(random({32, 64}, DType::kF32, 2)),
               bias = there(random({32}, DType::kF32, 3)), dy = there(random({8, 32}, DType::kF32, 4));
  const auto results = [&](const GemmTable& table) {
    use_gemm_table(table);
    GradSlot slot{there(random({32, 64}, DType::kF32, 5))};
    linear_backward_weight(dy, x, slot);
    const LinearGelu half = linear_gelu_forward(x, w, bias, true);
    const Tensors on_device{linear_forward(x, w, {}), linear_forward(x, w, bias), half.y, linear_backward_input(dy, w), slot.grad,
                            linear_gelu_backward_input(there(random({8, 64}, DType::kF32, 6)),
                                                       there(random({64, 32}, DType::kF32, 7)), half.before)};
    std::vector<std::vector<double>> values;
    for (const Tensor& t : on_device) values.push_back(to_doubles(to_device(t, Device::cpu())));
    return values;
  };
  const auto exact = results(before), tf32 = results(in_tf32);
  use_gemm_table(before);
  for (size_t i = 0; i < exact.size(); ++i) {
    double largest = 0, difference = 0;
    for (size_t k = 0; k < exact[i].size(); ++k) {
      largest = std::max(largest, std::abs(exact[i][k]));
      difference = std::max(difference, std::abs(exact[i][k] - tf32[i][k]));
    }
    EXPECT_GT(difference, 1e-5 * largest) << i;
    EXPECT_LT(difference, 2e-3 * largest) << i;
  }
}

}  // namespace
}  // namespace trireme::testing
