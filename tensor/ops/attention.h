// Multi-head attention over packed rows.
#pragma once

#include <cstdint>

#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace trireme {

// The heads of one rank. Query head h attends with key and value head h / (q_heads / kv_heads): grouped
// queries (Ainslie et al. 2023, arXiv:2305.13245), with multi-head and multi-query attention as the two ends.
struct HeadLayout {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;  // divides q_heads
  int64_t head_dim = 0;
  // Columns of a packed qkv row: all query heads, then all key heads, then all value heads.
  int64_t width() const { return (q_heads + 2 * kv_heads) * head_dim; }
};

// Where the sequences of a packed micro-batch begin: rows [starts[s], starts[s+1]) are sequence s. Empty ones
// are fine.
struct Segments {
  Tensor starts;        // i32 [S+1] on the CPU, starts[0] = 0, starts[S] = rows
  int64_t longest = 0;  // rows of the longest one, or an upper bound of it; 0: not known
  Tensor device_starts = {};  // starts once more, where qkv is, if that is not the CPU; undefined: each op copies them

  int64_t count() const { return starts.defined() ? starts.numel() - 1 : 0; }
};

struct AttentionOptions {
  bool causal = true;      // row i of a segment sees rows 0..i of it; else all of it
  float scale = 0;         // of the scores; 0: 1/sqrt(head_dim)
  Dropout dropout;         // of the weights, after the softmax
  int64_t first_head = 0;  // the global number of local query head 0: keys the dropout mask
  Tensor row_keys;         // i64 [T], needed with dropout
};

// The seed of one head's dropout mask. The weight of query row t for key j (counted within the segment) is
// dropped if philox(attention_head_seed(seed, head), stream, row_keys[t], j / 4)[j % 4] < threshold, whatever
// the layout. SplitMix64's finalizer (Steele et al. 2014, doi:10.1145/2660193.2660195) of head + 1.
uint64_t attention_head_seed(uint64_t seed, int64_t global_head);

// out[t, h] = sum over j of dropout(softmax over j of scale * q[t, h] . k[j, h']) v[j, h'], j in the segment
// of t. Tiles of 64 x 64 with an online softmax and a recomputing backward: Dao 2023, arXiv:2307.08691; the
// [T, T] weights never exist.
//   qkv   [T, layout.width()]  f32, bf16 or f16
// Returns [T, q_heads * head_dim] in the same dtype; sums in f32, in an order that does not depend on the
// number of threads. Saves qkv, the output and 4 bytes per row and query head. Throws ShapeError if qkv, the
// layout, the segments or the options do not fit together.
Tensor attention(const Tensor& qkv, const HeadLayout& layout, const Segments& segments,
                 const AttentionOptions& options = {});

// Throws ShapeError, naming the op, if qkv is not a float tensor of [rows, layout.width()] with a valid layout.
void check_heads(const char* op, const Tensor& qkv, const HeadLayout& layout);
// Throws ShapeError if the segments do not cover rows 0..rows in order. Returns the rows of the longest one.
int64_t check_segments(const char* op, const Segments& segments, int64_t rows);
// The starts where `x` is. Throws ShapeError if segments.device_starts are elsewhere, or of another number.
Tensor starts_beside(const char* op, const Segments& segments, const Tensor& x);

}  // namespace trireme
