// Training on a CUDA device gives what it gives on the CPU. In the emulated program device memory is closed to the
// processor but in kernels and copies, so whatever reads a tensor there by itself ends the test.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda_device.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr Device kCuda{DeviceKind::kCuda, 0};

void expect_device_run_equals_cpus(const ModelConfig& config, Layout layout, double tolerance, const std::string& what) {
  const RunOutcome want = run_threads(config, layout, 2);
  layout.device = kCuda;
  expect_same_run(run_threads(config, layout, 2), want, tolerance, what);
}

class TrainingOnADevice : public ::testing::Test {
 protected:
  void SetUp() override { require_device(); }
};

ModelConfig two_layers(ModelConfig config) {
  config.num_hidden_layers = 2;
  return config;
}

TEST_F(TrainingOnADevice, Gpt2WithDropoutGivesTheCpusLossesGradientsAndWeights) {
  expect_device_run_equals_cpus(two_layers(tiny_gpt2(0.1)), {.micro_batch = 4}, 1e-5, "gpt2");
}

TEST_F(TrainingOnADevice, LlamaGivesTheCpusLossesGradientsAndWeights) {
  expect_device_run_equals_cpus(two_layers(tiny_llama()), {.micro_batch = 4, .recompute = Recompute::kFull}, 1e-5, "llama");
}

TEST_F(TrainingOnADevice, EncodersGiveTheCpusLossesGradientsAndWeights) {
  for (const auto& [family, head] : {std::pair("bert", HeadKind::kLanguageModel), std::pair("bert", HeadKind::kTokenClassification),
                                     std::pair("roberta", HeadKind::kLanguageModel),
                                     std::pair("distilbert", HeadKind::kQuestionAnswering)})
    for (const Layout& layout : {Layout{.micro_batch = 4}, Layout{.tp = 2, .sequence = true, .micro_batch = 4}})
      expect_device_run_equals_cpus(two_layers(tiny_encoder(family, head)), layout, 1e-5,
                                    std::string(family) + " " + describe(layout));
}

TEST_F(TrainingOnADevice, Bf16KeepsItsMastersThere) {
  expect_device_run_equals_cpus(two_layers(tiny_llama()), {.micro_batch = 4, .dtype = DType::kBF16}, 5e-3, "bf16");
}

// Where f16 rounds otherwise, a neighbouring 8-bit number may be up to an eighth away.
TEST_F(TrainingOnADevice, Fp8RoundsItsOperandsThere) {
  const ModelConfig config = two_layers(tiny_gpt2(0.1));
  Layout layout{.micro_batch = 4, .dtype = DType::kF16, .fp8 = true};
  const RunOutcome want = run_threads(config, layout, 1);
  layout.device = kCuda;
  const RunOutcome got = run_threads(config, layout, 1);
  EXPECT_NEAR(got.losses[0], want.losses[0], 1e-3 * want.losses[0]);
  EXPECT_NEAR(got.grad_norms[0], want.grad_norms[0], 0.02 * want.grad_norms[0]);
  for (const auto& [tensor, values] : want.gradients) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      difference += std::pow(got.gradients.at(tensor)[i] - values[i], 2);
      size += std::pow(values[i], 2);
    }
    EXPECT_LE(std::sqrt(difference / size), 0.15) << tensor;
    RecordProperty(tensor, std::to_string(std::sqrt(difference / size)));
  }
}

// Against one rank on the CPU, so that collectives, messages and reductions of a device's tensors are in it.
TEST_F(TrainingOnADevice, EveryLayoutThereGivesOneCpuRanksNumbers) {
  const ModelConfig gpt2 = two_layers(tiny_gpt2(0.1)), llama = two_layers(tiny_llama());
  const RunOutcome want_gpt2 = run_threads(gpt2, {.micro_batch = 2}, 2), want_llama = run_threads(llama, {.micro_batch = 2}, 2);
  std::vector<Layout> layouts = {{.tp = 2},
                                 {.tp = 2, .sequence = true, .recompute = Recompute::kSelective},
                                 {.pp = 2},
                                 {.pp = 2, .schedule = "zb-h1"},
                                 {.dp = 2, .tp = 2, .sequence = true, .zero = 2}};
  for (int zero : {0, 1, 2}) layouts.push_back({.dp = 2, .zero = zero});
  for (Layout& layout : layouts) {
    layout.micro_batch = 2;
    layout.device = kCuda;
    expect_same_run(run_threads(gpt2, layout, 2), want_gpt2, 1e-5, "gpt2 " + describe(layout));
  }
  for (Layout layout : {layouts[1], layouts[3], layouts[5]})
    expect_same_run(run_threads(llama, layout, 2), want_llama, 1e-5, "llama " + describe(layout));
}

}  // namespace
}  // namespace trireme::testing
