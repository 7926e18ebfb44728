// Training with products of fewer bits (run.matmul_precision).
#include <gtest/gtest.h>

#include "tensor/gemm_table.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr int kSteps = 20;

RunOutcome run_in(MatmulPrecision precision, const ModelConfig& model, const Layout& layout) {
  const GemmTable before = gemm_table();
  GemmTable table = before;
  table.set_precision(precision);
  use_gemm_table(table);
  RunOutcome outcome = run_threads(model, layout, kSteps);
  use_gemm_table(before);
  return outcome;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(a[i] - b[i]) / b[i]);
  return largest;
}

class MatmulPrecisionTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!available(MatmulPrecision::kBf16x3)) GTEST_SKIP() << "this processor has no AMX";
  }
  static ModelConfig model() { return GetParam() ? tiny_llama() : tiny_gpt2(0.1); }
};
INSTANTIATE_TEST_SUITE_P(Models, MatmulPrecisionTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "llama" : "gpt2"; });

TEST_P(MatmulPrecisionTest, LossesFollowThoseOfF32AsCloselyAsTheBitsAllow) {
  const Layout layout{.micro_batch = 4};
  const RunOutcome f32 = run_in(MatmulPrecision::kF32, model(), layout);
  const double x3 = largest_difference(run_in(MatmulPrecision::kBf16x3, model(), layout).losses, f32.losses),
               bf16 = largest_difference(run_in(MatmulPrecision::kBf16, model(), layout).losses, f32.losses);
  const double f16 = available(MatmulPrecision::kF16)
                         ? largest_difference(run_in(MatmulPrecision::kF16, model(), layout).losses, f32.losses)
                         : bf16 / 2;
  RecordProperty("f16", std::to_string(f16));
  EXPECT_LT(f16, bf16);
  EXPECT_GT(f16, 4 * x3);
  RecordProperty("bf16x3", std::to_string(x3));
  RecordProperty("bf16", std::to_string(bf16));
  EXPECT_LT(x3, 2e-5);
  EXPECT_GT(x3, 0);  // it was in force
  EXPECT_LT(bf16, 5e-3);
  EXPECT_GT(bf16, 4 * x3);
}

// What layouts add up in another order differs by roundings of f32, which the halves of later numbers pass
// on.
TEST_P(MatmulPrecisionTest, LayoutsAgree) {
  const RunOutcome want = run_in(MatmulPrecision::kBf16x3, model(), {.micro_batch = 8});
  for (const Layout& layout :
       {Layout{.dp = 2, .zero = 1, .micro_batch = 2}, Layout{.tp = 2, .sequence = true, .micro_batch = 4},
        Layout{.pp = 2, .micro_batch = 2}, Layout{.dp = 2, .tp = 2, .pp = 2, .micro_batch = 1}})
    expect_same_run(run_in(MatmulPrecision::kBf16x3, model(), layout), want, 2e-4, describe(layout));
}

}  // namespace
}  // namespace trireme::testing
