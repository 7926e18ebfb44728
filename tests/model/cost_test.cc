#include "model/cost.h"

#include <gtest/gtest.h>

#include "comm/threads.h"
#include "model/sharded_model.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

TEST(Cost, CountsTheParametersOfEveryFamilyAndHead) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  for (const char* name :
       {"gpt2-tiny", "llama-tiny", "llama-rope-tied", "encoder-bert-masked", "encoder-bert-pretraining", "encoder-bert-sequence",
        "encoder-bert-token", "encoder-bert-answer", "encoder-bert-embedding", "encoder-roberta-masked",
        "encoder-roberta-regression", "encoder-distilbert-masked", "encoder-distilbert-sequence", "encoder-distilbert-answer"})
    for (const bool tied : {true, false}) {
      ModelConfig config = ModelConfig::from_directory(testing::fixture(name));
      config.tie_word_embeddings = tied;
      EXPECT_EQ(count_parameters(config).total(), ShardedModel(config, mesh, {}).global_num_parameters()) << name << " " << tied;
    }
}

TEST(Cost, AnEncodersTokensSeeTheWholeText) {
  ModelConfig bert = ModelConfig::from_directory(testing::fixture("encoder-bert-token"));
  // 12 for each layer, width and key, and 6 for each weight of the blocks and of the classifier.
  EXPECT_DOUBLE_EQ(training_flops_per_token(bert, 10),
                   6.0 * static_cast<double>(count_parameters(bert).layers + 5 * 24) + 12.0 * 2 * 24 * 10);
  const double token = training_flops_per_token(bert, 10);
  bert.head.kind = HeadKind::kSequenceClassification;  // the first token of ten
  EXPECT_NEAR(training_flops_per_token(bert, 10), token - 6 * 5 * 24 + 6 * (24 * 24 + 5 * 24) / 10.0, 1e-6);
  const ModelConfig gpt2 = ModelConfig::from_directory(testing::fixture("gpt2-tiny"));
  EXPECT_DOUBLE_EQ(training_flops_per_token(gpt2, 9) - training_flops_per_token(gpt2, 7), 12.0 * 3 * 48);
}

}  // namespace
}  // namespace trireme
