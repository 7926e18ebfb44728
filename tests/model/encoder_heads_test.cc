// What encoders and their heads refuse, by name. What they compute is in tests/trainer/encoder_reference_test.cc.
#include <gtest/gtest.h>

#include "comm/threads.h"
#include "model/sharded_model.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

// Texts of these lengths of one id each.
TokenBatch texts(const std::vector<int>& lengths) {
  std::vector<int32_t> ids, positions, starts{0};
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(3 + starts.size()));
      positions.push_back(i);
    }
    starts.push_back(static_cast<int32_t>(ids.size()));
  }
  TokenBatch b;
  const int64_t n = static_cast<int64_t>(ids.size());
  b.ids = tensor_of<int32_t>(ids, {n});
  b.positions = tensor_of<int32_t>(positions, {n});
  b.row_keys = zeros({n}, DType::kI64);
  b.segments.starts = tensor_of<int32_t>(starts, {static_cast<int64_t>(starts.size())});
  return b;
}

class EncoderHeads : public ::testing::Test {
 protected:
  std::unique_ptr<ShardedModel> model_of(const std::string& name) {
    auto model =
        std::make_unique<ShardedModel>(ModelConfig::from_directory(testing::fixture("encoder-" + name)), mesh_, ModelLayout());
    allocate_values(model->parameters(), DType::kF32, Device::cpu());
    model->initialize(1);
    return model;
  }
  std::string error_of(const std::string& name, const TokenBatch& batch, const LossOptions* options = nullptr) {
    const auto model = model_of(name);
    PassContext pass{batch};
    Tensor out;
    pass.outputs = &out;
    pass.loss_options = options;
    try {
      model->chunks()[0]->forward({}, pass, nullptr, {}, nullptr);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  std::unique_ptr<Communicator> self_ = make_self_communicator();
  Mesh mesh_{*self_, {}};
};

TEST_F(EncoderHeads, ATextLongerThanTheModelIsRefused) {
  EXPECT_EQ(error_of("bert-token", texts({19, 2})), "no error");
  EXPECT_EQ(error_of("bert-token", texts({2, 20})), "a text has a token at position 19; the model has positions 0 to 18");
  EXPECT_EQ(error_of("roberta-token", texts({17})), "no error");
  EXPECT_EQ(error_of("roberta-token", texts({18})), "a text has a token at position 17; the model has positions 0 to 16");
}

TEST_F(EncoderHeads, ATypeThatTheModelHasNotIsRefusedWhereItHasTypes) {
  TokenBatch batch = texts({3});
  batch.types = tensor_of<int32_t>({0, 2, 1}, {3});
  EXPECT_EQ(error_of("bert-token", batch), "a token has type 2; the model has types 0 to 1");
  EXPECT_EQ(error_of("roberta-token", batch), "a token has type 2; the model has types 0 to 0");
  EXPECT_EQ(error_of("distilbert-token", batch), "no error");
}

TEST_F(EncoderHeads, AnEmptyTextHasNoFirstToken) {
  EXPECT_EQ(error_of("bert-sequence", texts({3, 0})), "text 1 of a batch is empty; one of a task has a token or more");
  EXPECT_EQ(error_of("bert-embedding", texts({0, 3})), "text 0 of a batch is empty; one of a task has a token or more");
}

TEST_F(EncoderHeads, LabelsOfAnotherFormAreRefused) {
  TokenBatch batch = texts({3});
  batch.labels = tensor_of<int32_t>({1}, {1});
  EXPECT_EQ(error_of("bert-masked", batch), "masked tokens: labels are i32[1]; want i32[3]");
  EXPECT_EQ(error_of("bert-multilabel", batch), "binary_loss: labels are i32[1]; want f32[1,3]");
  batch.labels = tensor_of<int32_t>({1, 53, -100}, {3});
  EXPECT_EQ(error_of("bert-masked", batch), "label 53 of token 1 is outside the vocabulary of 53");
  const LossOptions smoothed{.label_smoothing = 0.1};
  EXPECT_EQ(error_of("bert-masked", batch, &smoothed),
            "label_smoothing=0.1: this model's head does not choose one class of several; leave it 0");
}

TEST_F(EncoderHeads, WithoutLabelsThereAreOutputsAndNoLoss) {
  const auto model = model_of("bert-masked");
  TokenBatch batch = texts({4, 2});
  Tensor out;
  PassContext pass{batch};
  pass.outputs = &out;
  EXPECT_EQ(model->chunks()[0]->forward({}, pass, nullptr, {}, nullptr).shape(), (Shape{6, 24}));
  EXPECT_EQ(out.shape(), (Shape{6, 53}));
  batch.labels = tensor_of<int32_t>({-100, 7, -100, -100, -100, 9}, {6});
  model->chunks()[0]->forward({}, pass, nullptr, {}, nullptr);
  EXPECT_EQ(out.shape(), (Shape{2, 53}));
  batch.labels = tensor_of<int32_t>({-100, -100, -100, -100, -100, -100}, {6});
  TokenLoss loss;
  model->chunks()[0]->forward({}, pass, nullptr, {}, &loss);
  EXPECT_EQ(out.shape(), (Shape{0, 53}));
  EXPECT_EQ(loss.totals.get().loss, 0);
}

TEST_F(EncoderHeads, AnEncoderWritesNoText) {
  const auto model = model_of("bert-masked");
  try {
    model->chunks()[0]->logits(zeros({3, 24}, DType::kF32), {0});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "bert is an encoder and writes no text; use a gpt2 or llama model");
  }
}

TEST_F(EncoderHeads, HeadsThatComputeOnTheCpuAloneSaySo) {
  const auto error = [&](const std::string& name) -> std::string {
    try {
      ShardedModel model(ModelConfig::from_directory(testing::fixture("encoder-" + name)), mesh_, {},
                         Device{DeviceKind::kCuda, 0});
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error("bert-sequence"),
            "run.device: the head of BertForSequenceClassification computes on the CPU alone; use run.device=cpu");
  EXPECT_EQ(error("bert-pretraining"),
            "run.device: the head of BertForPreTraining computes on the CPU alone; use run.device=cpu");
  EXPECT_EQ(error("bert-embedding"), "run.device: the head of BertModel computes on the CPU alone; use run.device=cpu");
  for (const char* name : {"bert-masked", "bert-token", "distilbert-answer"}) EXPECT_EQ(error(name), "no error") << name;
}

}  // namespace
}  // namespace trireme
