// The models and batches that benchmarks train and run.
#pragma once

#include "model/hf_config.h"
#include "model/transformer.h"
#include "tensor/rng.h"

namespace trireme {

inline ModelConfig gpt2_124m() {
  ModelConfig c;
  c.model_type = "gpt2";
  c.vocab_size = 50257;
  c.hidden_size = 768;
  c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 12;
  c.head_dim = 64;
  c.intermediate_size = 3072;
  c.max_position_embeddings = 1024;
  c.hidden_act = "gelu_new";
  c.tie_word_embeddings = c.attention_bias = c.mlp_bias = true;
  return c;
}

inline ModelConfig llama_134m() {
  ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = 32000;
  c.hidden_size = 768;
  c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 12;
  c.head_dim = 64;
  c.intermediate_size = 2048;
  c.max_position_embeddings = 2048;
  c.hidden_act = "silu";
  return c;
}

// `batch` sequences of `length` random tokens, whose labels are random too. A function of its arguments.
inline TokenBatch random_batch(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed) {
  const int64_t n = batch * length;
  TokenBatch b;
  b.ids = empty({n}, DType::kI32);
  b.labels = empty({n}, DType::kI32);
  b.positions = empty({n}, DType::kI32);
  b.row_keys = empty({n}, DType::kI64);
  b.segments.starts = empty({batch + 1}, DType::kI32);
  b.segments.longest = length;
  for (int64_t i = 0; i < n; ++i) {
    const auto words = philox(seed, 0, static_cast<uint64_t>(i), 0);
    b.ids.data<int32_t>()[i] = static_cast<int32_t>(words[0] % static_cast<uint32_t>(vocabulary));
    b.labels.data<int32_t>()[i] = static_cast<int32_t>(words[1] % static_cast<uint32_t>(vocabulary));
    b.positions.data<int32_t>()[i] = static_cast<int32_t>(i % length);
    b.row_keys.data<int64_t>()[i] = i;
  }
  for (int64_t s = 0; s <= batch; ++s) b.segments.starts.data<int32_t>()[s] = static_cast<int32_t>(s * length);
  return b;
}

}  // namespace trireme
