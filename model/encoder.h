// BERT's embedding and block, which its relatives share under other names.
#pragma once

#include "model/norm.h"
#include "model/self_attention.h"
#include "model/transformer.h"
#include "tensor/ops/gelu.h"

namespace trireme {

// The activation that config.hidden_act names: gelu, or its tanh form.
Gelu gelu_of(const ModelConfig& config);

struct EncoderEmbeddingNames {
  std::string tokens, positions;  // with .weight at the end, as is types
  std::string types;              // empty: the family has none, and looks at no types
  std::string norm;

  // Those of BERT itself, after `prefix`.
  static EncoderEmbeddingNames of_bert(const std::string& prefix);
};

// dropout(norm(token + type + position)). A text's first position is row config.first_position.
class EncoderEmbedding final : public Embedding {
 public:
  EncoderEmbedding(const LayerContext& context, const ModelConfig& config, const EncoderEmbeddingNames& names);
  // Throws Error where a text is longer than config.max_length(), or a type is none of the model's (on the CPU).
  Tensor forward(const Tensor& ids, const PassContext& pass) const override;
  Parameter& token_weight() override { return tokens_.weight(); }

 private:
  Communicator& tp_;
  bool split_rows_;
  double dropout_;
  int64_t first_position_, max_length_;
  VocabularyEmbedding tokens_;
  Parameter *positions_, *types_ = nullptr;
  LayerNormParams norm_;
};

struct EncoderBlockNames {
  std::string query, key, value, attention_out, attention_norm, mlp_in, mlp_out, mlp_norm;

  static EncoderBlockNames of_bert(const std::string& prefix, int layer);
};

// h = norm(x + dropout(attention(x))), norm(h + dropout(mlp(h))): the post-norm block of Vaswani et al. 2017
// (arXiv:1706.03762), attention in both directions.
class EncoderBlock final : public Block {
 public:
  // `attention_dropout`: after the attention's output layer. That after the MLP is config.resid_dropout.
  EncoderBlock(const LayerContext& context, const ModelConfig& config, int layer, const EncoderBlockNames& names,
               double attention_dropout);
  Tensor forward(const Tensor& x, const PassContext& pass) const override;

 private:
  Communicator& tp_;
  int layer_;
  bool split_rows_;
  SelfAttention attention_;
  double attention_dropout_, mlp_dropout_;
  Gelu gelu_;
  Linear qkv_, attention_out_;
  LayerNormParams attention_norm_;
  Linear mlp_in_, mlp_out_;
  LayerNormParams mlp_norm_;
};

// Layers [first, last), as Family::blocks().
std::vector<std::unique_ptr<Block>> encoder_blocks(const LayerContext& context, const ModelConfig& config, int first, int last,
                                                   const std::function<void(int)>& begin,
                                                   const std::function<EncoderBlockNames(int layer)>& names,
                                                   double attention_dropout);

}  // namespace trireme
