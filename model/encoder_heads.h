// What stands on an encoder's blocks, by config.head.kind. A family differs in names, and in what lies between the hidden
// states and the last linear layer. The heads' weights are whole on every tensor rank, but for the output over the
// vocabulary: they are few.
#pragma once

#include "model/transformer.h"
#include "tensor/ops/gelu.h"

namespace trireme {

enum class Activation : uint8_t { kTanh, kRelu };

struct EncoderHeads {
  // decoder(norm(gelu(dense(x)))) + bias; the decoder is the token embedding where config ties them, else NAME.weight and
  // NAME.bias of its own.
  struct Masked {
    std::string dense, norm, tokens, decoder, bias;
    Gelu gelu = Gelu::kErf;
  } masked;
  // kPretraining: next_sentence(tanh(pooler(first token))).
  std::string pooler, next_sentence;
  // out(dropout(activation(dense(dropout(first token))))).
  struct Sequence {
    std::string dense;
    Activation activation = Activation::kTanh;
    double dropout_before = 0, dropout_after = 0;
    std::string out;
  } sequence;
  // out(dropout(x)): of each token.
  struct Token {
    double dropout = 0;
    std::string out;
  } token, answer;
};

// The head that config.head asks for; its loss and its outputs are those of Head in transformer.h. Losses of kLanguageModel and
// kPretraining compute the labelled rows alone.
// Throws ConfigError on a CUDA device for what is on the CPU alone: kPretraining, kSequenceClassification, kEmbedding.
std::unique_ptr<Head> encoder_head(const LayerContext& context, const ModelConfig& config, Parameter* tied,
                                   const EncoderHeads& heads);

}  // namespace trireme
