// Training with the products of linear layers in 8-bit floats.
#include <gtest/gtest.h>

#include "layout_harness.h"

namespace trireme::testing {
namespace {

ModelConfig model() {
  ModelConfig c = tiny_llama();
  c.num_hidden_layers = 2;
  c.hidden_size = 64;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 4;
  c.head_dim = 8;
  c.intermediate_size = 96;
  return c;
}

TEST(TrainingInFp8, FollowsTheLossesOfBf16) {
  constexpr int kSteps = 20;
  const RunOutcome bf16 = run_threads(model(), {.micro_batch = 8, .dtype = DType::kBF16}, kSteps),
                   fp8 = run_threads(model(), {.micro_batch = 8, .dtype = DType::kBF16, .fp8 = true}, kSteps);
  double most = 0;
  for (int i = 0; i < kSteps; ++i) most = std::max(most, std::abs(fp8.losses[i] / bf16.losses[i] - 1));
  RecordProperty("largest_difference", std::to_string(most));
  EXPECT_GT(most, 1e-5);  // it is another arithmetic
  EXPECT_LT(most, 0.02);
  EXPECT_LT(fp8.losses.back(), 0.9 * fp8.losses[0]);
}

TEST(TrainingInFp8, GivesTheSameNumbersAtEveryLayout) {
  const Layout single{.micro_batch = 8, .dtype = DType::kBF16, .fp8 = true};
  const RunOutcome want = run_threads(model(), single, 3);
  for (Layout layout : {Layout{.tp = 2, .sequence = true, .micro_batch = 8}, Layout{.dp = 2, .zero = 2, .micro_batch = 2},
                        Layout{.pp = 2, .schedule = "zb-h1", .micro_batch = 2}}) {
    layout.dtype = DType::kBF16;
    layout.fp8 = true;
    const RunOutcome got = run_threads(model(), layout, 3);
    for (int i = 0; i < 3; ++i)
      EXPECT_NEAR(got.losses[i], want.losses[i], 0x1p-8 * want.losses[i]) << describe(layout) << ", step " << i + 1;
  }
}

TEST(TrainingInFp8, RefusesWidthsThatTheProductsDoNotTake) {
  try {
    run_threads(tiny_llama(), {.tp = 4, .micro_batch = 8, .dtype = DType::kBF16, .fp8 = true}, 1);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("8-bit products want multiples of 16"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace trireme::testing
