// Training on a CUDA device gives what it gives on the CPU. In the emulated program device memory is closed to the
// processor but in kernels and copies, so whatever reads a tensor there by itself ends the test.
#include <gtest/gtest.h>

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

TEST_F(TrainingOnADevice, Bf16KeepsItsMastersThere) {
  expect_device_run_equals_cpus(two_layers(tiny_llama()), {.micro_batch = 4, .dtype = DType::kBF16}, 5e-3, "bf16");
}

}  // namespace
}  // namespace trireme::testing
