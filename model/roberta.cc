#include "model/roberta.h"

#include "model/encoder.h"
#include "model/encoder_heads.h"

namespace trireme {
namespace {

class RobertaFamily final : public Family {
 public:
  std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const override {
    return std::make_unique<EncoderEmbedding>(context, config, EncoderEmbeddingNames::of_bert("roberta"));
  }

  std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first, int last,
                                             const std::function<void(int)>& begin) const override {
    return encoder_blocks(
        context, config, first, last, begin, [](int layer) { return EncoderBlockNames::of_bert("roberta", layer); },
        config.resid_dropout);
  }

  std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config, Parameter* tied) const override {
    const double dropout = config.classifier_dropout.value_or(config.resid_dropout);
    EncoderHeads heads;
    heads.masked = {"lm_head.dense", "lm_head.layer_norm", "roberta.embeddings.word_embeddings.weight", "lm_head.decoder",
                    "lm_head.bias", Gelu::kErf};  // whatever hidden_act is
    heads.sequence = {"classifier.dense", Activation::kTanh, dropout, dropout, "classifier.out_proj"};
    heads.token = {dropout, "classifier"};
    heads.answer = {0, "qa_outputs"};
    return encoder_head(context, config, tied, heads);
  }
};

}  // namespace

const Family& roberta_family() {
  static const RobertaFamily family;
  return family;
}

}  // namespace trireme
