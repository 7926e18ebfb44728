// Training with f16 storage and dynamic loss scaling.
#include "trainer/loss_scale.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "comm/threads.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

TEST(LossScale, HalvesAtOnceAndDoublesAfterManyGoodStepsWithinItsBounds) {
  LossScale scale{LossScale::kFirst};
  scale.update(false);
  EXPECT_EQ(scale, (LossScale{32768, 0}));
  for (int64_t i = 1; i < LossScale::kDoubleAfter; ++i) scale.update(true);
  EXPECT_EQ(scale, (LossScale{32768, LossScale::kDoubleAfter - 1}));
  scale.update(false);  // what was good before does not count any more
  EXPECT_EQ(scale, (LossScale{16384, 0}));
  for (int64_t i = 0; i < LossScale::kDoubleAfter; ++i) scale.update(true);
  EXPECT_EQ(scale, (LossScale{32768, 0}));
  for (int i = 0; i < 40; ++i) scale.update(false);
  EXPECT_EQ(scale.value, LossScale::kLeast);
  scale.value = LossScale::kMost;
  for (int64_t i = 0; i < LossScale::kDoubleAfter; ++i) scale.update(true);
  EXPECT_EQ(scale.value, LossScale::kMost);
}

double largest_difference(const RunOutcome& a, const RunOutcome& b) {
  double largest = 0;
  for (size_t i = 0; i < b.losses.size(); ++i)
    largest = std::max(largest, std::abs(a.losses.at(i) - b.losses[i]) / b.losses[i]);
  return largest;
}

TEST(TrainingInF16, FollowsTheLossesOfF32MoreCloselyThanBf16) {
  for (const ModelConfig& model : {tiny_gpt2(0.1), tiny_llama()}) {
    const auto run = [&](DType dtype) { return run_threads(model, {.micro_batch = 4, .dtype = dtype}, 12); };
    const RunOutcome f32 = run(DType::kF32);
    const double f16 = largest_difference(run(DType::kF16), f32), bf16 = largest_difference(run(DType::kBF16), f32);
    EXPECT_GT(f16, 0);
    EXPECT_LT(f16, 2e-3);
    EXPECT_LT(f16, bf16 / 2);
  }
}

TEST(TrainingInF16, GivesOneRanksLossesAtEveryLayout) {
  const RunOutcome want = run_threads(tiny_gpt2(0.1), {.micro_batch = 2, .dtype = DType::kF16}, 4);
  for (Layout layout : {Layout{.tp = 2, .sequence = true}, Layout{.pp = 2, .schedule = "zb-h1"}, Layout{.dp = 2, .zero = 2}}) {
    layout.micro_batch = 2;
    layout.dtype = DType::kF16;
    EXPECT_LT(largest_difference(run_threads(tiny_gpt2(0.1), layout, 4), want), 1e-3) << describe(layout);
  }
}

// One rank with one batch.
struct OneRank {
  Mesh mesh;
  ShardedModel model;
  ParameterBuckets buckets;
  Optimizer optimizer;
  TrainStep train;
  std::vector<TokenBatch> batches;

  OneRank(Communicator& world, DType dtype)
      : mesh(world, {}),
        model(tiny_gpt2(0), mesh, {}),
        buckets(model.parameters(), mesh, {0, 16 << 10, dtype, Device::cpu()}),
        optimizer((model.initialize(11), buckets), {}),
        train(model, buckets, optimizer, {.scale_loss = dtype == DType::kF16}),
        batches({make_batch({1, 2}, model.config())}) {}

  // Gradients of the loss times `scale`, divided by it again.
  WholeTensors gradients(double scale) {
    train.set_loss_scale({scale});
    train.forward_backward(batches);
    WholeTensors all;
    gather_gradients(buckets, all);
    for (auto& [name, values] : all)
      for (float& v : values) v = static_cast<float>(v / scale);
    return all;
  }
  std::string weights() {
    std::string bits;
    for (const Bucket& b : buckets.buckets()) bits.append(static_cast<const char*>(b.values.raw()), b.values.num_bytes());
    return bits;
  }
};

TEST(TrainingInF16, KeepsSmallGradientsByTheScale) {
  run_ranks(1, [](Communicator& world) {
    OneRank f32(world, DType::kF32), f16(world, DType::kF16);
    const WholeTensors want = f32.gradients(1);
    // Of the first layer's weights, through which all others' roundings go.
    const auto error = [&](double scale) {
      const std::string name = "transformer.h.0.mlp.c_fc.weight";
      return relative_error(f16.gradients(scale).at(name), want.at(name));
    };
    const double scaled = error(LossScale::kFirst);
    EXPECT_LT(scaled, 5e-3);
    EXPECT_GT(error(1.0 / 1024), 10 * scaled);
  });
}

TEST(TrainingInF16, AnOverflowChangesTheScaleAloneAndTheNextStepTriesHalf) {
  run_ranks(1, [](Communicator& world) {
    OneRank rank(world, DType::kF16);
    EXPECT_EQ(rank.train.loss_scale(), (LossScale{LossScale::kFirst, 0}));
    rank.train.set_loss_scale({0x1p40, 7});
    const std::string before = rank.weights();
    int skipped = 0;
    StepResult r;
    for (; skipped < 40; ++skipped) {
      r = rank.train.run(rank.batches, 3e-3, 1);
      if (!r.skipped) break;
      EXPECT_EQ(rank.train.loss_scale(), (LossScale{std::ldexp(1.0, 39 - skipped), 0}));
      EXPECT_EQ(rank.weights(), before);
    }
    EXPECT_GT(skipped, 5);
    ASSERT_FALSE(r.skipped);
    EXPECT_NE(rank.weights(), before);
    EXPECT_EQ(rank.train.loss_scale().good_steps, 1);
    // Norm and loss are those without a scale.
    OneRank f32(world, DType::kF32);
    const StepResult want = f32.train.run(f32.batches, 3e-3, 1);
    EXPECT_NEAR(r.loss, want.loss, 1e-3 * want.loss);
    EXPECT_NEAR(r.grad_norm, want.grad_norm, 1e-2 * want.grad_norm);
  });
}

}  // namespace
}  // namespace trireme::testing
