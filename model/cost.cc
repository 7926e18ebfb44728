#include "model/cost.h"

#include <algorithm>

#include "model/transformer.h"
#include "parallel/vocabulary.h"

namespace trireme {

namespace {

// The head of an encoder.
int64_t head_parameters(const ModelConfig& c) {
  const int64_t d = c.hidden_size, dense = d * d + d, labels = static_cast<int64_t>(c.head.labels.size());
  const int64_t masked = dense + 2 * d + c.vocab_size + (c.tie_word_embeddings ? 0 : c.vocab_size * d);
  switch (c.head.kind) {
    case HeadKind::kLanguageModel: return masked;
    case HeadKind::kPretraining: return masked + dense + 2 * d + 2;
    case HeadKind::kSequenceClassification: return dense + labels * (d + 1);
    case HeadKind::kTokenClassification: return labels * (d + 1);
    case HeadKind::kQuestionAnswering: return 2 * (d + 1);
    case HeadKind::kEmbedding: return 0;
  }
  return 0;
}

// Weights of a head's products for each token of a text of `length`.
double head_products(const ModelConfig& c, int64_t length) {
  const double d = static_cast<double>(c.hidden_size), v = static_cast<double>(c.vocab_size),
               labels = static_cast<double>(c.head.labels.size());
  if (is_decoder(c)) return v * d;
  switch (c.head.kind) {
    case HeadKind::kLanguageModel: return kMaskedShare * (d * d + v * d);
    case HeadKind::kPretraining: return kMaskedShare * (d * d + v * d) + (d * d + 2 * d) / static_cast<double>(length);
    case HeadKind::kSequenceClassification: return (d * d + labels * d) / static_cast<double>(length);
    case HeadKind::kTokenClassification: return labels * d;
    case HeadKind::kQuestionAnswering: return 2 * d;
    case HeadKind::kEmbedding: return 0;
  }
  return 0;
}

}  // namespace

bool has_gated_mlp(const ModelConfig& c) { return c.model_type == "llama"; }

double keys_seen(const ModelConfig& c, int64_t length) {
  return is_decoder(c) ? (static_cast<double>(length) + 1) / 2 : static_cast<double>(length);
}

double vocabulary_share(const ModelConfig& c) {
  return is_decoder(c) ? 1 : c.head.over_vocabulary() ? kMaskedShare : 0;
}

ParameterCounts count_parameters(const ModelConfig& c) {
  const bool gelu = !has_gated_mlp(c), decoder = is_decoder(c);
  const int64_t d = c.hidden_size, f = c.intermediate_size, q = c.num_attention_heads * c.head_dim,
                kv = c.num_key_value_heads * c.head_dim;
  const int64_t norm = gelu ? 2 * d : d;
  int64_t block = d * (q + 2 * kv) + q * d + (gelu ? 2 : 3) * d * f + 2 * norm;
  if (gelu || c.attention_bias) block += q + 2 * kv + d;
  if (gelu || c.mlp_bias) block += gelu ? f + d : 2 * f + d;
  ParameterCounts n;
  n.embedding = c.vocab_size * d + (gelu ? c.max_position_embeddings * d : 0) + c.type_vocab_size * d + (decoder ? 0 : norm);
  n.layers = c.num_hidden_layers * block + (decoder ? norm : 0);
  n.head = !decoder ? head_parameters(c) : c.tie_word_embeddings ? 0 : c.vocab_size * d;
  return n;
}

double training_flops_per_token(const ModelConfig& c, int64_t length) {
  const double weights = static_cast<double>(count_parameters(c).layers) + head_products(c, length);
  return 6 * weights + 12 * static_cast<double>(c.num_hidden_layers * c.num_attention_heads * c.head_dim) * keys_seen(c, length);
}

double activation_bytes_per_token_and_layer(const ModelConfig& c, int tensor_ranks, bool sequence_parallel,
                                            int recompute, int bytes) {
  const double n = tensor_ranks, rows = sequence_parallel ? 1 / n : 1;  // the share of a row-wise tensor
  const double d = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size),
               q = static_cast<double>(c.num_attention_heads * c.head_dim),
               kv = static_cast<double>(c.num_key_value_heads * c.head_dim);
  if (recompute == 2) return bytes * d * rows;
  // Input, both norms' outputs, and the sum before one of them (encoders: input, both sums, the norm between); query-key-value (Llama: as they leave rope) and attention's output
  // with 4 bytes of log-sum-exp a head; the MLP's inner tensors.
  const double row_wise = 4 * d * rows;
  const double attention = (q + 2 * kv + q) / n;
  const double mlp = recompute == 1 ? 0 : (has_gated_mlp(c) ? 3 : 2) * f / n;
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
  const double block = tokens * (element * (2 * d + (has_gated_mlp(c) ? 2 : 1) * f / n) + again);
  if (!p.head) return kept + block;
  // The last block's output, its norm and the gradient of that stay from the loss to the end of the head's backward.
  if (!c.head.over_vocabulary()) return kept + std::max(2 * tokens * d * element, block);
  const double chunk = std::min(tokens * vocabulary_share(c), static_cast<double>(kLossChunk));
  const double loss = 3 * tokens * d * element + chunk * (static_cast<double>(c.vocab_size) / n + d) * element;
  return kept + std::max(loss, block);
}

}  // namespace trireme
