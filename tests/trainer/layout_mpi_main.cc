// Layout invariance between real processes: mpirun -np N of this program runs every layout below that has N
// ranks, and rank 0 compares what all ranks hold with a single process.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "comm/mpi.h"
#include "tensor/threads.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr int kSteps = 20;
constexpr double kTolerance = 2e-5;

Communicator* world = nullptr;  // gtest's tests take no argument

enum class Model { kGpt2, kLlama, kBert, kRoberta };
struct Case {
  Model model;
  Layout layout;
};
constexpr Model kGpt2 = Model::kGpt2, kLlama = Model::kLlama, kBert = Model::kBert, kRoberta = Model::kRoberta;

ModelConfig config_of(Model model) {
  switch (model) {
    case kGpt2: return tiny_gpt2(0.1);
    case kLlama: return tiny_llama();
    case kBert: return tiny_encoder("bert", HeadKind::kPretraining);
    case kRoberta: return tiny_encoder("roberta", HeadKind::kSequenceClassification);
  }
  return {};
}
void PrintTo(const Case& c, std::ostream* out) { *out << config_of(c.model).model_type << " " << describe(c.layout); }

// Elements that this process does not hold are NaN: filled in from the ranks that do.
void merge(WholeTensors& tensors, const WholeTensors& wanted) {
  for (const auto& [name, values] : wanted) {
    std::vector<float>& mine = tensors[name];
    mine.resize(values.size(), NAN);
    const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(float));
    for (const std::string& other : world->all_gather_strings(bytes)) {
      std::vector<float> theirs(values.size());
      std::memcpy(theirs.data(), other.data(), other.size());
      for (size_t i = 0; i < mine.size(); ++i)
        if (std::isnan(mine[i])) mine[i] = theirs[i];
    }
  }
}

class LayoutOverProcesses : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutOverProcesses, EqualsTheSingleProcess) {
  const auto& [model, layout] = GetParam();
  if (layout.world() != world->size()) GTEST_SKIP() << "a layout of " << layout.world() << " ranks";
  const ModelConfig config = config_of(model);
  const RunOutcome single = run_threads(config, {.micro_batch = 8}, kSteps);
  RunOutcome outcome;
  run_rank(*world, config, layout, kSteps, outcome);
  merge(outcome.gradients, single.gradients);
  merge(outcome.weights, single.weights);
  if (world->rank() == 0) expect_same_run(outcome, single, kTolerance, describe(layout));
}

INSTANTIATE_TEST_SUITE_P(
    All, LayoutOverProcesses,
    ::testing::Values(
        Case{kGpt2, {.tp = 2, .micro_batch = 2}}, Case{kLlama, {.tp = 2, .sequence = true, .micro_batch = 2}},
        Case{kGpt2, {.dp = 2, .zero = 1, .micro_batch = 1}},
        Case{kLlama, {.dp = 2, .zero = 2, .micro_batch = 2}}, Case{kGpt2, {.pp = 2, .micro_batch = 1}},
        Case{kLlama, {.pp = 2, .schedule = "interleaved", .chunks = 3, .micro_batch = 2}},
        Case{kGpt2, {.pp = 3, .schedule = "zb-h1", .micro_batch = 1}},
        Case{kLlama, {.pp = 3, .schedule = "gpipe", .micro_batch = 2, .recompute = Recompute::kFull}},
        Case{kGpt2, {.dp = 2, .tp = 2, .sequence = true, .zero = 2, .micro_batch = 1}},
        Case{kGpt2,
             {.tp = 2, .pp = 2, .sequence = true, .micro_batch = 2, .recompute = Recompute::kSelective}},
        Case{kLlama, {.dp = 2, .pp = 2, .schedule = "gpipe", .zero = 1, .micro_batch = 1}},
        Case{kLlama, {.tp = 4, .micro_batch = 4}},
        Case{kBert, {.tp = 2, .sequence = true, .micro_batch = 2}}, Case{kRoberta, {.pp = 2, .micro_batch = 2}},
        Case{kBert, {.pp = 3, .schedule = "zb-h1", .micro_batch = 2}},
        Case{kRoberta, {.tp = 2, .pp = 2, .sequence = true, .micro_batch = 2}}));

}  // namespace
}  // namespace trireme::testing

int main(int argc, char** argv) {
  trireme::MpiEnvironment mpi;
  auto communicator = trireme::make_mpi_world();
  trireme::testing::world = communicator.get();
  trireme::set_num_threads(
      1);  // more ranks than cores: waiting threads of OpenMP would take turns with working ones
  ::testing::InitGoogleTest(&argc, argv);
  if (communicator->rank() != 0) delete ::testing::UnitTest::GetInstance()->listeners().Release(
      ::testing::UnitTest::GetInstance()->listeners().default_result_printer());
  return RUN_ALL_TESTS();
}
