// Kernels of attention over a paged cache (contract: tensor/ops/cached_attention.h).
#pragma once

#include "tensor/cpu/attention.h"

namespace trireme::cpu {

static constexpr int64_t kDecodeChunk = 256;  // keys that one decode item streams

// A block of queries of one query head (partial < 0), or one chunk of keys for all new rows of a sequence and
// all query heads of one key head, whose result goes to partials[partial].
struct CachedItem {
  int32_t sequence, head, block, partial;
};
// The partial results of one sequence and key head, to be merged.
struct CachedMerge {
  int32_t sequence, head, first_partial, count;
};

struct CachedAttentionArgs {
  AttentionArgs attention;  // qkv, heads, starts, scale, threads and scratch; always causal, no dropout
  void *keys, *values;      // [num_blocks, kv_heads, block_size, head_dim]
  const int32_t* lengths;
  const int32_t* block_table;
  int64_t sequences, max_blocks, block_size;
  int64_t longest_keys;  // read on CUDA only: the most tokens, new ones included, of a sequence, or an upper bound
  const CachedItem* items;
  int64_t num_items;
  const CachedMerge* merges;
  int64_t num_merges;
  float* partials;  // partial_stride floats each
  int64_t partial_stride;
};

// A partial result holds, for each of `queries` (new rows times query heads per key head), the largest score,
// the sum of weights and the unscaled output.
static constexpr int64_t cached_partial_floats(int64_t head_dim, int64_t queries) {
  return queries * (attention_padded_dim(head_dim) + 16);
}
static constexpr int64_t cached_attention_scratch(int64_t head_dim, int64_t queries) {
  return attention_forward_scratch(head_dim) + queries * (attention_padded_dim(head_dim) + kAttentionTile);
}

// keys, values <- the new rows.
TRIREME_CPU_KERNEL(write_cache, (const CachedAttentionArgs& args), (args))
// out [rows, q_heads * head_dim] <- attention over the cache, which holds the new rows.
TRIREME_CPU_KERNEL(cached_attention, (const CachedAttentionArgs& args, void* out), (args, out))

}  // namespace trireme::cpu
