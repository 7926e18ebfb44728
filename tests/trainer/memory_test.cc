// The memory that is counted before a run against what the tensors of a step take.
#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "model/cost.h"
#include "tensor/allocator.h"
#include "tests/trainer/layout_harness.h"
#include "trainer/train_step.h"

namespace trireme::testing {
namespace {

// Large enough that tensors are whole pages, small enough for a test.
ModelConfig small_model(const std::string& type) {
  ModelConfig c = type == "gpt2" ? tiny_gpt2(0) : tiny_llama();
  c.vocab_size = 2003;
  c.hidden_size = 256;
  c.num_hidden_layers = 6;
  c.num_attention_heads = 4;
  c.num_key_value_heads = type == "gpt2" ? 4 : 2;
  c.head_dim = 64;
  c.intermediate_size = type == "gpt2" ? 1024 : 704;
  c.max_position_embeddings = 256;
  return c;
}

TokenBatch batch_of(int64_t segments, int64_t length, int64_t vocabulary) {
  const int64_t n = segments * length;
  TokenBatch b;
  b.ids = empty({n}, DType::kI32);
  b.labels = empty({n}, DType::kI32);
  b.positions = empty({n}, DType::kI32);
  b.row_keys = empty({n}, DType::kI64);
  b.segments.starts = empty({segments + 1}, DType::kI32);
  b.segments.longest = length;
  for (int64_t i = 0; i < n; ++i) {
    b.ids.data<int32_t>()[i] = static_cast<int32_t>(i * 7919 % vocabulary);
    b.labels.data<int32_t>()[i] = static_cast<int32_t>(i * 104729 % vocabulary);
    b.positions.data<int32_t>()[i] = static_cast<int32_t>(i % length);
    b.row_keys.data<int64_t>()[i] = i;
  }
  for (int64_t s = 0; s <= segments; ++s) b.segments.starts.data<int32_t>()[s] = static_cast<int32_t>(s * length);
  return b;
}

TEST(Memory, TensorsOfAStepPeakWithinFivePercentOfTheCount) {
  for (const std::string type : {"gpt2", "llama"})
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      const ModelConfig config = small_model(type);
      const std::vector<TokenBatch> batch = {batch_of(6, 128, config.vocab_size)};
      Allocator& allocator = default_cpu_allocator();
      const double before = static_cast<double>(allocator.stats().live_bytes);
      const auto world = make_self_communicator();
      const Mesh mesh(*world, {});
      ShardedModel model(config, mesh, {});
      ParameterBuckets buckets(model.parameters(), mesh, {});
      model.initialize(1);
      Optimizer optimizer(buckets, {});
      const double parameters = 16.0 * static_cast<double>(count_parameters(config).total());
      const double held = static_cast<double>(allocator.stats().live_bytes) - before;
      EXPECT_NEAR(held / parameters, 1, 0.01) << type;
      TrainStepOptions options;
      options.recompute = recompute;
      TrainStep train(model, buckets, optimizer, options);
      train.run(batch, 1e-4, 1);
      allocator.reset_peak();
      train.run(batch, 1e-4, 2);
      const double peak = static_cast<double>(allocator.stats().peak_bytes) - before - held;
      ActivationPlan plan;
      plan.tokens = batch[0].tokens();
      plan.layers = static_cast<double>(config.num_hidden_layers);
      plan.recompute = static_cast<int>(recompute);
      EXPECT_NEAR(peak / activation_bytes(config, plan), 1, 0.05)
          << type << ", recompute " << plan.recompute << ": " << peak / 1024 << " KiB";
    }
}

}  // namespace
}  // namespace trireme::testing
