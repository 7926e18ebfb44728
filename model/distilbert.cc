#include "model/distilbert.h"

#include "model/encoder.h"
#include "model/encoder_heads.h"

namespace trireme {
namespace {

class DistilBertFamily final : public Family {
 public:
  std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const override {
    return std::make_unique<EncoderEmbedding>(
        context, config,
        EncoderEmbeddingNames{"distilbert.embeddings.word_embeddings.weight",
                              "distilbert.embeddings.position_embeddings.weight", "", "distilbert.embeddings.LayerNorm"});
  }

  std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first, int last,
                                             const std::function<void(int)>& begin) const override {
    const auto names = [](int layer) {
      const std::string name = "distilbert.transformer.layer." + std::to_string(layer) + ".";
      return EncoderBlockNames{name + "attention.q_lin",   name + "attention.k_lin", name + "attention.v_lin",
                               name + "attention.out_lin", name + "sa_layer_norm",   name + "ffn.lin1",
                               name + "ffn.lin2",          name + "output_layer_norm"};
    };
    return encoder_blocks(context, config, first, last, begin, names, /*attention_dropout=*/0);
  }

  std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config, Parameter* tied) const override {
    const double dropout = config.classifier_dropout.value_or(config.resid_dropout);
    EncoderHeads heads;
    heads.masked = {"vocab_transform", "vocab_layer_norm", "distilbert.embeddings.word_embeddings.weight", "vocab_projector",
                    "vocab_projector.bias", gelu_of(config)};
    heads.sequence = {"pre_classifier", Activation::kRelu, 0, dropout, "classifier"};
    heads.token = {config.resid_dropout, "classifier"};
    heads.answer = {config.qa_dropout, "qa_outputs"};
    return encoder_head(context, config, tied, heads);
  }
};

}  // namespace

const Family& distilbert_family() {
  static const DistilBertFamily family;
  return family;
}

}  // namespace trireme
