#include "model/bert.h"

#include "model/encoder.h"
#include "model/encoder_heads.h"

namespace trireme {
namespace {

class BertFamily final : public Family {
 public:
  std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const override {
    return std::make_unique<EncoderEmbedding>(context, config, EncoderEmbeddingNames::of_bert("bert"));
  }

  std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first, int last,
                                             const std::function<void(int)>& begin) const override {
    return encoder_blocks(
        context, config, first, last, begin, [](int layer) { return EncoderBlockNames::of_bert("bert", layer); },
        config.resid_dropout);
  }

  std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config, Parameter* tied) const override {
    const double dropout = config.classifier_dropout.value_or(config.resid_dropout);
    EncoderHeads heads;
    heads.masked = {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
                    "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder", "cls.predictions.bias",
                    gelu_of(config)};
    heads.pooler = "bert.pooler.dense";
    heads.next_sentence = "cls.seq_relationship";
    heads.sequence = {"bert.pooler.dense", Activation::kTanh, 0, dropout, "classifier"};
    heads.token = {dropout, "classifier"};
    heads.answer = {0, "qa_outputs"};
    return encoder_head(context, config, tied, heads);
  }
};

}  // namespace

const Family& bert_family() {
  static const BertFamily family;
  return family;
}

}  // namespace trireme
