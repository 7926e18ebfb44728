// The attention kernels (contracts: tensor/ops/attention.h, tensor/ops/cached_attention.h). Work comes as a
// list of items made by the op, so that any mix of segment lengths is spread over the threads; results do not
// depend on which thread does what.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// Rows of queries and of keys in one tile. Element [t][k] of a tile is held with the keys in rows and the
// queries along the lanes, so that the softmax never works across lanes, and K and V need no transposition.
static constexpr int64_t kAttentionTile = 64;

// Floats from row to row of a tile's scratch. An odd number of cache lines, or else the columns of a power of
// two of rows would fall into few sets of the first cache.
static constexpr int64_t kAttentionStride = kAttentionTile + 16;

static constexpr int64_t attention_padded(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
static constexpr int64_t attention_padded_dim(int64_t head_dim) {
  const int64_t lines = attention_padded(head_dim, 16) / 16;
  return 16 * (lines % 2 ? lines : lines + 1);
}

struct AttentionItem {
  int32_t segment, head, block;
};

struct AttentionArgs {
  const void* qkv;  // [rows, (q_heads + 2 kv_heads) * head_dim]
  DType dtype;
  int64_t q_heads, kv_heads, head_dim;
  const int32_t* starts;
  bool causal;
  float scale;
  bool dropout;
  uint32_t drop_threshold, stream;
  float keep_scale;            // 1 / (1 - p)
  const uint64_t* head_seeds;  // by local query head
  const int64_t* row_keys;     // by row
  int64_t rows, segments;      // read on CUDA only, where starts lies on the device: its last entry, its entries less
  int64_t longest;             // one, and the rows of the longest segment or an upper bound of them
  float* scratch;              // scratch_stride floats for each thread
  int64_t scratch_stride;
  int threads;
};

// Floats of scratch a thread needs.
static constexpr int64_t attention_forward_scratch(int64_t head_dim) {
  return 2 * kAttentionStride * attention_padded_dim(head_dim) +
         2 * kAttentionTile * attention_padded_dim(head_dim) + kAttentionTile * kAttentionStride;
}
// `held_keys`: keys whose gradients a thread keeps at once: the longest segment in one pass, a tile in two.
static constexpr int64_t attention_backward_scratch(int64_t head_dim, int64_t held_keys) {
  return 7 * kAttentionStride * attention_padded_dim(head_dim) + 2 * kAttentionTile * kAttentionStride +
         2 * attention_padded(held_keys, kAttentionTile) * attention_padded_dim(head_dim);
}

// Items are (segment, query head, query block). out [rows, q_heads * head_dim] in dtype. lse [rows, q_heads],
// or null: the base-2 logarithm of the sum of exp(scale * q.k) over the visible keys.
TRIREME_CPU_KERNEL(attention_forward,
                   (const AttentionArgs& args, const AttentionItem* items, int64_t num_items, void* out,
                    float* lse),
                   (args, items, num_items, out, lse))

struct AttentionGradArgs {
  const void* d_out;
  const void* out;
  const float* lse;
  void* d_qkv;
};

// The whole gradient, in five products a tile. Items are (segment, key head, unused).
TRIREME_CPU_KERNEL(attention_backward,
                   (const AttentionArgs& args, const AttentionGradArgs& grad, const AttentionItem* items,
                    int64_t num_items),
                   (args, grad, items, num_items))
// The same bits in two passes of three and four products a tile, for fewer items than threads: the query
// gradients by (segment, query head, query block), and those of keys and values by (segment, key head, key
// block).
TRIREME_CPU_KERNEL(attention_backward_queries,
                   (const AttentionArgs& args, const AttentionGradArgs& grad, const AttentionItem* items,
                    int64_t num_items),
                   (args, grad, items, num_items))
TRIREME_CPU_KERNEL(attention_backward_keys,
                   (const AttentionArgs& args, const AttentionGradArgs& grad, const AttentionItem* items,
                    int64_t num_items),
                   (args, grad, items, num_items))

}  // namespace trireme::cpu
