#include "model/cost.h"

#include <algorithm>

#include "parallel/vocabulary.h"

namespace trireme {

ParameterCounts count_parameters(const ModelConfig& c) {
  const bool gpt2 = c.model_type == "gpt2";
  const int64_t d = c.hidden_size, f = c.intermediate_size, q = c.num_attention_heads * c.head_dim,
                kv = c.num_key_value_heads * c.head_dim;
  const int64_t norm = gpt2 ? 2 * d : d;
  int64_t block = d * (q + 2 * kv) + q * d + (gpt2 ? 2 : 3) * d * f + 2 * norm;
  if (gpt2 || c.attention_bias) block += q + 2 * kv + d;
  if (gpt2 || c.mlp_bias) block += gpt2 ? f + d : 2 * f + d;
  ParameterCounts n;
  n.embedding = c.vocab_size * d + (gpt2 ? c.max_position_embeddings * d : 0);
  n.layers = c.num_hidden_layers * block + norm;
  n.head = c.tie_word_embeddings ? 0 : c.vocab_size * d;
  return n;
}

double training_flops_per_token(const ModelConfig& c, int64_t length) {
  const ParameterCounts n = count_parameters(c);
  const double weights = static_cast<double>(n.layers) + static_cast<double>(c.vocab_size) * static_cast<double>(c.hidden_size);
  const double seen = (static_cast<double>(length) + 1) / 2;
  return 6 * weights + 12 * static_cast<double>(c.num_hidden_layers * c.num_attention_heads * c.head_dim) * seen;
}

double activation_bytes_per_token_and_layer(const ModelConfig& c, int tensor_ranks, bool sequence_parallel,
                                            int recompute, int bytes) {
  const double n = tensor_ranks, rows = sequence_parallel ? 1 / n : 1;  // the share of a row-wise tensor
  const double d = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size),
               q = static_cast<double>(c.num_attention_heads * c.head_dim),
               kv = static_cast<double>(c.num_key_value_heads * c.head_dim);
  if (recompute == 2) return bytes * d * rows;
  const bool gpt2 = c.model_type == "gpt2";
  // Input and both norms' outputs and the sum between; query-key-value (Llama: as they leave rope) and attention's output
  // with 4 bytes of log-sum-exp a head; the MLP's inner tensors.
  const double row_wise = 4 * d * rows;
  const double attention = (q + 2 * kv + q) / n;
  const double mlp = recompute == 1 ? 0 : (gpt2 ? 2 : 3) * f / n;
  return bytes * (row_wise + attention + mlp) + 4 * static_cast<double>(c.num_attention_heads) / n + 16 * rows;
}

double activation_bytes(const ModelConfig& c, const ActivationPlan& p) {
  const double tokens = static_cast<double>(p.tokens), n = p.tensor_ranks, element = p.bytes;
  const double d = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size);
  const auto per_token = [&](int recompute) {
    return activation_bytes_per_token_and_layer(c, p.tensor_ranks, p.sequence_parallel, recompute, p.bytes);
  };
  const double kept = p.live * p.layers * tokens * per_token(p.recompute);
  // Backward of the MLP, where a block holds most: the gradients of its output and of its inner tensors, less those
  // tensors that are freed before the next gradient comes; and what recomputing brings back.
  const double again = p.recompute == 0 ? 0 : per_token(0) - per_token(p.recompute);
  const double block = tokens * (element * (2 * d + (c.model_type == "gpt2" ? 1 : 2) * f / n) + again);
  if (!p.head) return kept + block;
  // The last block's output, its norm and the gradient of that stay from the loss to the end of the head's backward.
  const double chunk = std::min(tokens, static_cast<double>(kLossChunk));
  const double loss = 3 * tokens * d * element + chunk * (static_cast<double>(c.vocab_size) / n + d) * element;
  return kept + std::max(loss, block);
}

}  // namespace trireme
