// Generation on a CUDA device gives the CPU's tokens: greedy and sampled, prompts in pieces, several sequences at once, at
// any layout. In the emulated program device memory is closed to the processor but in kernels and copies.
#include <gtest/gtest.h>

#include "comm/threads.h"
#include "inference/engine.h"
#include "model/load_weights.h"
#include "tensor/cuda/devices.h"
#include "tests/cuda_device.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

using Outputs = std::vector<std::vector<int32_t>>;

struct Case {
  std::string model;
  bool device = false;
  DType dtype = DType::kF32;
  int tp = 1, pp = 1;
};

// What rank 0 gets.
Outputs generate(const Case& c, const SamplingOptions& sampling) {
  Outputs outputs;
  const int ranks = c.tp * c.pp;
  run_ranks(ranks, [&](Communicator& world) {
    Device device;
    if (c.device) {
      cuda::select_device(world.rank() % cuda::device_count());
      device = {DeviceKind::kCuda, cuda::selected_device(), nullptr};
    }
    const Mesh mesh(world, {.pp = c.pp, .tp = c.tp});
    const ModelConfig config = ModelConfig::from_directory(fixture(c.model));
    const ShardedModel model(config, mesh, {}, device);
    map_weights(model, WeightSource::open(fixture(c.model)), c.dtype);
    // Prompts go in pieces of 8 rows beside those that decode, blocks are filled in the middle of a step.
    Engine engine(model, {.max_sequences = 3, .max_step_tokens = 8, .block_size = 4});
    std::vector<std::vector<int32_t>> prompts = {{5, 9, 2}, {7}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, {3, 3}};
    const auto results = engine.generate(prompts, sampling);
    if (world.rank() != 0) return;
    for (const Generation& g : results) outputs.push_back(g.output);
  }, {.timeout_s = 120});
  return outputs;
}

SamplingOptions sampling(double temperature) {
  SamplingOptions o;
  o.max_tokens = 6;
  o.temperature = temperature;
  o.ignore_eos = true;
  o.repetition_penalty = temperature > 0 ? 1.1 : 1;
  o.seed = 7;
  return o;
}

class GenerationOnADevice : public ::testing::Test {
 protected:
  void SetUp() override { require_device(); }
};

TEST_F(GenerationOnADevice, GivesTheCpusTokens) {
  for (const char* model : {"gpt2-tiny", "llama-tiny", "llama-rope-tied"})
    for (double temperature : {0.0, 0.9}) {
      const Outputs want = generate({.model = model}, sampling(temperature));
      ASSERT_EQ(want.size(), 4u);
      EXPECT_EQ(generate({.model = model, .device = true}, sampling(temperature)), want) << model << " " << temperature;
    }
}

TEST_F(GenerationOnADevice, GivesThemAtEveryLayout) {
  for (const auto& [model, tp, pp] : {std::tuple("llama-tiny", 2, 1), std::tuple("gpt2-tiny", 1, 2), std::tuple("gpt2-tiny", 2, 1)})
    EXPECT_EQ(generate({.model = model, .device = true, .tp = tp, .pp = pp}, sampling(0.9)), generate({.model = model}, sampling(0.9)))
        << model << " tp " << tp << " pp " << pp;
}

TEST_F(GenerationOnADevice, KeepsA16BitCacheThere) {
  // Near ties may fall otherwise in 16 bits, so the first token of each alone is compared.
  SamplingOptions first = sampling(0);
  first.max_tokens = 1;
  for (const char* model : {"gpt2-tiny", "llama-tiny"})
    EXPECT_EQ(generate({.model = model, .device = true, .dtype = DType::kBF16}, first),
              generate({.model = model, .dtype = DType::kBF16}, first));
  EXPECT_EQ(generate({.model = "llama-tiny", .device = true, .dtype = DType::kBF16}, sampling(0))[0].size(), 6u);
}

}  // namespace
}  // namespace trireme::testing
