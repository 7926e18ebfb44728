#include "trainer/validate.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/schedule.h"
#include "tests/test_data.h"
#include "trainer/model_section.h"

namespace trireme {
namespace {

using Overrides = std::vector<std::string>;

// 12 layers, 12 heads of which 4 for keys and values, 2048 intermediate.
const std::string kConfig = R"(
model:
  model_type: llama
  vocab_size: 999
  hidden_size: 768
  num_hidden_layers: 12
  num_attention_heads: 12
  num_key_value_heads: 4
  intermediate_size: 2048
  max_position_embeddings: 512
data: {train: corpus.tokens, sequence_length: 256}
train: {steps: 1000, global_batch: 24, micro_batch: 2}
)";

RunConfig config_of(const Overrides& overrides) { return parse_run_config(kConfig, "f.yaml", overrides); }

RunPlan plan_of(int world, const Overrides& overrides = {}, std::optional<int64_t> samples = {}) {
  const RunConfig config = config_of(overrides);
  return validate(config, load_model_config(config), {world, samples});
}

std::string error_of(int world, const Overrides& overrides = {}, std::optional<int64_t> samples = {}) {
  try {
    plan_of(world, overrides, samples);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(Validate, DerivesTheRunsArithmetic) {
  const RunPlan plan = plan_of(12, {"parallel.tensor=2", "parallel.pipeline=3", "train.warmup_steps=100"});
  EXPECT_EQ(plan.data_ranks, 2);
  EXPECT_EQ(plan.micro_batches, 6);
  EXPECT_EQ(plan.tokens_per_step, 24 * 256);
  EXPECT_EQ(plan.tokens_per_micro_batch, 2 * 256);
  EXPECT_EQ(plan.total_steps, 1000);
  EXPECT_EQ(plan.decay_steps, 900);
  EXPECT_EQ(plan.layers_per_stage, (std::vector<int>{4, 4, 4}));
  EXPECT_TRUE(plan.warnings.empty());
  const std::string text = describe_plan(config_of({"parallel.tensor=2", "parallel.pipeline=3"}), plan);
  EXPECT_NE(text.find("12 ranks = tensor 2 * pipeline 3 * data 2"), std::string::npos) << text;
  EXPECT_NE(text.find("6144 tokens a step, in 6 micro-batches of 2"), std::string::npos) << text;
}

TEST(Validate, ResolvesTheRunsLength) {
  const Overrides none = {"train.steps=null"};
  EXPECT_EQ(error_of(1, none), "train.steps is missing; give one of train.steps, train.tokens, train.epochs");
  EXPECT_EQ(error_of(1, {"train.tokens=5"}),
            "train.steps, train.tokens and train.epochs: 2 of them are given; keep one (null removes one)");
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.tokens=6144"}).total_steps, 1);
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.tokens=6145"}).total_steps, 2);
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.epochs=2"}).total_steps, std::nullopt);
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.epochs=2"}, 24).total_steps, 2);
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.epochs=1.5"}, 25).total_steps, 2);  // 37.5 samples
  EXPECT_EQ(plan_of(1, {"train.steps=null", "train.epochs=3"}, 25).total_steps, 4);    // 75 samples
  EXPECT_NE(error_of(1, {"train.steps=null", "train.epochs=3"}, 0).find("no step can be made"),
            std::string::npos);
}

TEST(Validate, RefusesAWorldThatDoesNotMatchTheLayout) {
  EXPECT_EQ(
      error_of(6, {"parallel.tensor=2", "parallel.pipeline=2"}),
      "world size 6 is not a multiple of parallel.tensor=2 * parallel.pipeline=2 = 4; start a multiple of 4 ranks or "
      "change the layout");
  EXPECT_EQ(
      error_of(6, {"parallel.tensor=2", "parallel.pipeline=2", "parallel.data=2"}),
      "world size 6 does not match parallel.tensor=2 * parallel.pipeline=2 * parallel.data=2 = 8; start 8 ranks or "
      "change the layout");
  EXPECT_EQ(error_of(8, {"parallel.tensor=2", "parallel.pipeline=2", "parallel.data=2"}), "no error");
  EXPECT_EQ(error_of(1, {"parallel.tensor=65536", "parallel.pipeline=65536", "parallel.data=1048576"})
                .substr(0, 12),
            "world size 1");
}

TEST(Validate, RefusesALayoutThatTheModelDoesNotFit) {
  EXPECT_EQ(error_of(5, {"parallel.pipeline=5"}),
            "parallel.pipeline=5 does not divide model.num_hidden_layers=12; use a divisor of 12 or give "
            "parallel.layers_per_stage");
  EXPECT_EQ(error_of(16, {"parallel.pipeline=16"}),
            "parallel.pipeline=16 is more stages than model.num_hidden_layers=12; use at most 12");
  EXPECT_EQ(error_of(5, {"parallel.tensor=5"}),
            "parallel.tensor=5 does not divide model.num_attention_heads=12; use a divisor of 4");
  EXPECT_EQ(error_of(6, {"parallel.tensor=6"}),
            "parallel.tensor=6 does not divide model.num_key_value_heads=4; use a divisor of 4");
  EXPECT_EQ(error_of(4, {"parallel.tensor=4", "model.intermediate_size=2046"}),
            "parallel.tensor=4 does not divide model.intermediate_size=2046; use a divisor of 2");
  EXPECT_EQ(error_of(4, {"parallel.tensor=4"}), "no error");  // a vocabulary of 999 is padded
}

TEST(Validate, RefusesListsOfLayersThatDoNotFit) {
  const Overrides five = {"parallel.pipeline=5", "train.micro_batch=1"};
  const auto with = [&](const std::string& list) {
    Overrides all = five;
    all.push_back("parallel.layers_per_stage=" + list);
    return all;
  };
  EXPECT_EQ(plan_of(5, with("[2,3,3,2,2]")).layers_per_stage, (std::vector<int>{2, 3, 3, 2, 2}));
  EXPECT_EQ(error_of(5, with("[6,6]")),
            "parallel.layers_per_stage names 2 stages, parallel.pipeline=5 has 5; give one count for each");
  EXPECT_EQ(error_of(5, with("[2,3,3,2,3]")),
            "parallel.layers_per_stage sums to 13, model.num_hidden_layers=12; the counts must sum to 12");
}

TEST(Validate, RefusesSchedulesThatDoNotSuit) {
  EXPECT_EQ(error_of(2, {"parallel.pipeline=2", "parallel.chunks=2"}),
            "parallel.chunks=2 with parallel.schedule=1f1b; chunks are for interleaved, use 1");
  EXPECT_EQ(error_of(2, {"parallel.pipeline=2", "parallel.schedule=interleaved"}),
            "parallel.schedule=interleaved with parallel.chunks=1; use 2 or more chunks, or schedule 1f1b");
  EXPECT_EQ(error_of(1, {"parallel.schedule=interleaved", "parallel.chunks=2"}),
            "parallel.schedule=interleaved with parallel.pipeline=1; use 2 or more stages, or schedule 1f1b");
  EXPECT_EQ(plan_of(2, {"parallel.pipeline=2", "parallel.schedule=interleaved", "parallel.chunks=3"})
                .layers_per_stage,
            (std::vector<int>{2, 2, 2, 2, 2, 2}));
  EXPECT_EQ(
      error_of(2, {"parallel.pipeline=2", "parallel.schedule=interleaved", "parallel.chunks=5"}),
      "parallel.pipeline=2 * parallel.chunks=5 = 10 does not divide model.num_hidden_layers=12; use a divisor of 12 or "
      "give parallel.layers_per_stage");
  // Every schedule there is can be chosen, and no other.
  for (const std::string& name : schedule_names())
    EXPECT_EQ(error_of(2, {"parallel.pipeline=2", "parallel.schedule=" + name,
                           name == "interleaved" ? "parallel.chunks=2" : "parallel.chunks=1"}),
              "no error");
  RunConfig defaults;
  const FieldList list = fields_of(defaults);
  EXPECT_EQ(std::get<Choice>(list.find("parallel.schedule")->target).names.size(), schedule_names().size());
}

TEST(Validate, RefusesBatchesThatDoNotDivide) {
  EXPECT_EQ(
      error_of(1, {"train.global_batch=10", "train.micro_batch=4"}),
      "train.global_batch=10 is not a multiple of train.micro_batch=4 * data ranks=1 = 4; use a multiple of 4");
  EXPECT_EQ(
      error_of(5),
      "train.global_batch=24 is not a multiple of train.micro_batch=2 * data ranks=5 = 10; use a multiple of 10");
  EXPECT_EQ(error_of(1, {"data.sequence_length=513"}),
            "data.sequence_length=513 is above model.max_position_embeddings=512; use at most 512");
  EXPECT_EQ(
      error_of(4, {"parallel.tensor=4", "parallel.sequence=true", "data.sequence_length=255"}),
      "parallel.sequence: train.micro_batch=2 * data.sequence_length=255 = 510 tokens are not a multiple of "
      "parallel.tensor=4; use a length that is");
  EXPECT_EQ(error_of(4, {"parallel.tensor=4", "parallel.sequence=true", "data.sequence_length=254"}),
            "no error");
  EXPECT_NE(error_of(1, {"train.global_batch=16777216", "train.micro_batch=1"})
                .find("use a larger train.micro_batch"),
            std::string::npos);
  EXPECT_EQ(plan_of(12, {"parallel.pipeline=12", "train.micro_batch=4"}).warnings.size(), 1u);
}

TEST(Validate, RefusesOptionsThatWouldBeIgnored) {
  const std::pair<Overrides, const char*> cases[] = {
      {{"train.momentum=0.9"},
       "train.momentum=0.9 with train.optimizer=adamw, which has none; use train.betas"},
      {{"train.nesterov=true"}, "train.nesterov=true with train.optimizer=adamw; it is for sgd"},
      {{"train.optimizer=sgd", "train.betas=[0.5,0.5]"},
       "train.betas with train.optimizer=sgd; they are for adamw, use train.momentum"},
      {{"train.optimizer=sgd", "train.eps=1e-3"},
       "train.eps=0.001 with train.optimizer=sgd; it is for adamw"},
      {{"train.optimizer=sgd", "train.nesterov=true"},
       "train.nesterov=true with train.momentum=0; it needs momentum above 0"},
      {{"train.min_learning_rate=1"}, "train.min_learning_rate=1 is above train.learning_rate=0.0003"},
      {{"train.schedule=constant", "train.decay_steps=5"},
       "train.decay_steps=5 with train.schedule=constant, which does not decay; use 0 or another schedule"},
      {{"train.early_stopping.patience=2"},
       "train.early_stopping with metric validation_loss needs data.validation, which is empty"},
      {{"checkpoint.keep_best=true", "data.validation=v"},
       "checkpoint.keep_best with best_metric validation_loss needs train.evaluate_every_steps above 0"},
      {{"train.evaluate_every_steps=5"},
       "train.evaluate_every_steps=5 needs data.validation, which is empty"},
      {{"sample.prompts=[a]"}, "sample.prompts needs tokenizer.path"},
      {{"run.matmul_precision=bf16x3", "train.dtype=bf16"},
       "run.matmul_precision=bf16x3 with train.dtype=bf16, whose products have its own precision; it is for train.dtype=f32"},
      {{"run.device=cuda", "run.matmul_precision=bf16x3"}, "run.matmul_precision=bf16x3 with run.device=cuda, which has f32 and tf32"},
      {{"run.device=cpu", "run.matmul_precision=tf32"}, "run.matmul_precision=tf32 with run.device=cpu; tf32 is for cuda"}};
  for (const auto& [overrides, message] : cases) EXPECT_EQ(error_of(1, overrides), message);
  EXPECT_EQ(error_of(2, {"comm.backend=self"}),
            "comm.backend=self is for one rank, 2 were started; use auto or mpi");
  EXPECT_EQ(error_of(1, {"train.early_stopping.patience=2", "train.early_stopping.metric=train_loss"}),
            "no error");
  const RunConfig cuda = config_of({"run.device=cuda"});
  EXPECT_NO_THROW(validate(cuda, load_model_config(cuda), {1, {}}));
}

TEST(Validate, WarnsOfWhatIsAllowedButHardlyMeant) {
  EXPECT_EQ(
      plan_of(1, {"train.warmup_steps=2000"}).warnings.at(0),
      "train.warmup_steps=2000 is above the run's 1000 steps; the learning rate never reaches its peak");
  EXPECT_EQ(plan_of(1, {"train.decay_steps=1001"}).warnings.size(), 1u);
  EXPECT_EQ(plan_of(1, {"train.schedule=wsd"}).decay_steps, 100);
  EXPECT_EQ(plan_of(1, {"checkpoint.every_minutes=0", "checkpoint.save_at_end=false"}).warnings.size(), 1u);
}

TEST(CheckVocabulary, RefusesOneLargerThanTheModels) {
  const RunConfig config = config_of({"tokenizer.path=tok"});
  const ModelConfig model = load_model_config(config);
  EXPECT_NO_THROW(check_vocabulary(config, model, 999, 999));
  EXPECT_NO_THROW(check_vocabulary(config, model, 512, std::nullopt));
  const auto error = [&](std::optional<int64_t> tokenizer, std::optional<int64_t> data) -> std::string {
    try {
      check_vocabulary(config, model, tokenizer, data);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(
      error(1000, 999),
      "tokenizer.path=tok has 1000 tokens, model.vocab_size=999; use model.vocab_size=1000 or the model's own "
      "tokenizer");
  EXPECT_EQ(
      error(999, 1000),
      "data.train is of a vocabulary of 1000 tokens, model.vocab_size=999; use model.vocab_size=1000 or prepare the "
      "data with the model's own tokenizer");
}

TEST(CheckPaths, NamesTheFieldAndTheMissingFile) {
  testing::TempDir dir;
  const std::string file = (dir.path() / "corpus.tokens").string();
  const auto error = [&](const Overrides& overrides) -> std::string {
    try {
      check_paths(config_of(overrides));
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(
      error({"data.train=" + file}).find("f.yaml: data.train=" + file + " is not there; check the path"), 0u);
  std::ofstream(file) << "x";
  EXPECT_EQ(error({"data.train=" + file}), "no error");
  EXPECT_EQ(error({"data.train=" + file, "data.validation=[" + file + ",none]"})
                .find("f.yaml: data.validation=none is"),
            0u);
  EXPECT_EQ(error({"data.train=" + file, "tokenizer.path=none"}).find("f.yaml: tokenizer.path=none is"), 0u);
}

}  // namespace
}  // namespace trireme
