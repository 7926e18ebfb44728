// The layout is an execution detail for encoders and their heads too: dropout in all its places, every option of a loss on.
#include <gtest/gtest.h>

#include <map>

#include "comm/threads.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr int kSteps = 8;
constexpr double kTolerance = 2e-5;

struct Model {
  const char* family;
  const char* head;
  HeadKind kind;
  ProblemType problem = ProblemType::kSingleLabel;
};

constexpr Model kModels[] = {
    {"bert", "masked", HeadKind::kLanguageModel},
    {"bert", "pretraining", HeadKind::kPretraining},
    {"bert", "sequence", HeadKind::kSequenceClassification},
    {"bert", "multilabel", HeadKind::kSequenceClassification, ProblemType::kMultiLabel},
    {"bert", "token", HeadKind::kTokenClassification},
    {"bert", "answer", HeadKind::kQuestionAnswering},
    {"bert", "embedding", HeadKind::kEmbedding},
    {"roberta", "masked", HeadKind::kLanguageModel},
    {"roberta", "sequence", HeadKind::kSequenceClassification},
    {"roberta", "regression", HeadKind::kSequenceClassification, ProblemType::kRegression},
    {"distilbert", "masked", HeadKind::kLanguageModel},
    {"distilbert", "sequence", HeadKind::kSequenceClassification},
    {"distilbert", "answer", HeadKind::kQuestionAnswering},
};

struct Case {
  Model model;
  Layout layout;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.model.family << " " << c.model.head << " " << describe(c.layout); }

ModelConfig config_of(const Model& m) { return tiny_encoder(m.family, m.kind, m.problem); }

// The loss of vectors depends on which texts share a micro-batch: there it has the layout's.
const RunOutcome& single_process(const Model& m, int micro_batch) {
  static std::map<std::string, RunOutcome> found;
  const int size = m.kind == HeadKind::kEmbedding ? micro_batch : kGlobalBatch;
  const std::string key = std::string(m.family) + m.head + std::to_string(size);
  const auto at = found.find(key);
  return at != found.end() ? at->second : found.emplace(key, run_threads(config_of(m), {.micro_batch = size}, kSteps)).first->second;
}

class EncoderLayouts : public ::testing::TestWithParam<Case> {};

TEST_P(EncoderLayouts, EqualTheSingleProcess) {
  const auto& [model, layout] = GetParam();
  const RunOutcome got = run_threads(config_of(model), layout, kSteps);
  expect_same_run(got, single_process(model, layout.micro_batch), kTolerance, describe(layout));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Model& m : kModels)
    for (const Layout& l :
         {Layout{.micro_batch = 2}, Layout{.micro_batch = 2, .recompute = Recompute::kSelective},
          Layout{.tp = 2, .micro_batch = 2}, Layout{.tp = 4, .micro_batch = 2, .recompute = Recompute::kFull},
          Layout{.tp = 2, .sequence = true, .micro_batch = 2}, Layout{.tp = 4, .sequence = true, .micro_batch = 4},
          Layout{.dp = 2, .zero = 2, .micro_batch = 2}, Layout{.pp = 2, .micro_batch = 2},
          Layout{.pp = 3, .schedule = "zb-h1", .micro_batch = 2},
          Layout{.pp = 2, .schedule = "interleaved", .chunks = 3, .micro_batch = 2},
          Layout{.tp = 2, .pp = 2, .sequence = true, .micro_batch = 2},
          Layout{.tp = 2, .pp = 3, .schedule = "gpipe", .micro_batch = 2},
          Layout{.dp = 2, .tp = 2, .pp = 2, .schedule = "zb-h1", .sequence = true, .zero = 2, .micro_batch = 2}})
      all.push_back({m, l});
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  std::string name = std::string(info.param.model.family) + "_" + info.param.model.head + "_" + describe(info.param.layout);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, EncoderLayouts, ::testing::ValuesIn(cases()), name_of_case);

// What a text is told must not depend on its neighbours in the batch.
TEST(EncoderLayouts, OutputsOfATextDoNotDependOnItsBatch) {
  const ModelConfig config = tiny_encoder("bert", HeadKind::kSequenceClassification);
  run_ranks(1, [&](Communicator& world) {
    Mesh mesh(world, {});
    ShardedModel model(config, mesh, {});
    allocate_values(model.parameters(), DType::kF32, Device::cpu());
    model.initialize(3);
    const auto outputs_of = [&](const std::vector<int64_t>& samples) {
      Tensor out;
      const TokenBatch batch = make_batch(samples, config);
      PassContext pass{batch};
      pass.outputs = &out;
      model.chunks()[0]->forward({}, pass, nullptr, {}, nullptr);
      return std::vector<float>(out.data<float>(), out.data<float>() + out.numel());
    };
    const auto both = outputs_of({3, 8}), first = outputs_of({3}), second = outputs_of({8});
    std::vector<float> apart = first;
    apart.insert(apart.end(), second.begin(), second.end());
    EXPECT_LE(relative_error(both, apart), 1e-6);
    EXPECT_GT(relative_error(first, second), 1e-2);
  });
}

}  // namespace
}  // namespace trireme::testing
