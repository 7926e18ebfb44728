// What a model costs, counted: parameters, operations, bytes. Numbers of the whole model.
#pragma once

#include "model/hf_config.h"

namespace trireme {

struct ParameterCounts {
  int64_t embedding = 0;   // tokens, positions, types; an encoder's norm there
  int64_t layers = 0;      // all blocks and a decoder's last norm
  int64_t head = 0;        // what stands on them, but for a tied output layer
  int64_t total() const { return embedding + layers + head; }
};
ParameterCounts count_parameters(const ModelConfig& config);

// The share of tokens that a masked language model is asked for, as in BERT's paper.
constexpr double kMaskedShare = 0.15;

// Whether a block's MLP is Llama's, of three products, beside rotary positions; else two around a gelu.
bool has_gated_mlp(const ModelConfig& config);
// How many keys a token sees on average in a text of `length`: half of them under a causal mask.
double keys_seen(const ModelConfig& config, int64_t length);
// The share of tokens whose logits over the vocabulary are computed in training.
double vocabulary_share(const ModelConfig& config);

// Floating-point operations of training one token (forward and backward, no recomputation): 6 for each weight of a
// product, the head included and lookups not, and those of attention: 12 a layer for each width of a query head
// and each key a token sees. An encoder's head counts for the rows that it computes: kMaskedShare of them, or the first of
// each text.
double training_flops_per_token(const ModelConfig& config, int64_t length);

// Bytes of activations that one token keeps for backward in one block on one tensor rank, in a dtype of `bytes` bytes.
// kept: what recompute leaves ("none", "selective", "full" as 0, 1, 2).
double activation_bytes_per_token_and_layer(const ModelConfig& config, int tensor_ranks, bool sequence_parallel,
                                            int recompute, int bytes);

// What one rank's forward and backward hold at their peak beside weights, gradients and optimizer states.
struct ActivationPlan {
  int64_t tokens = 0;        // of a micro-batch
  double layers = 0;         // on this rank
  bool head = true;          // whether the loss is computed here
  double live = 1;           // micro-batches between their forward and their backward
  int tensor_ranks = 1;
  bool sequence_parallel = false;
  int recompute = 0;         // as above
  int bytes = 4;             // of an element
};
// The kept activations, and on top of them the greater of two working sets: that of the loss (a chunk of logits, the
// last norm, the gradient of the hidden states) and that of one block's backward.
double activation_bytes(const ModelConfig& config, const ActivationPlan& plan);

}  // namespace trireme
