// Attention of generation: a step's new rows against all that came before them, kept in a paged cache.
#pragma once

#include "tensor/ops/attention.h"

namespace trireme {

// The keys and values of one layer in blocks of tokens (Kwon et al. 2023, arXiv:2309.06180), each
// [num_blocks, kv_heads, block_size, head_dim]: the rows of one head in one block lie one after another, so
// that decoding streams them.
struct KvBlocks {
  Tensor keys, values;
};

// One step of a batch of sequences. Token t of sequence s lies in block block_table[s][t / block_size], row
// t % block_size. Sequences may share blocks that they only read; REQUIRES: no block that one of them writes
// in this step belongs to another.
struct CacheView {
  Segments rows;           // the new rows of each sequence in this step, any number, none too
  Tensor lengths;          // i32 [S] on the CPU: tokens in the cache before this step
  Tensor block_table;      // i32 [S, max_blocks] on the CPU; entries past a sequence's last token are not looked at
  int64_t block_size = 0;  // tokens
  // lengths and block_table once more, where qkv is, if that is not the CPU; undefined: each call copies them.
  Tensor device_lengths = {}, device_block_table = {};
};

// Writes the new rows' keys and values (already turned by rope) into the cache, then attends causally: new
// row i of sequence s, which is token lengths[s] + i, sees tokens 0 .. lengths[s] + i.
//   qkv    [T, layout.width()]  f32, bf16 or f16, the cache's dtype
//   scale  of the scores; 0: 1/sqrt(head_dim)
// Returns [T, q_heads * head_dim] in the same dtype; sums in f32, the same bits for any number of threads.
// Long runs of new rows (prefill) go in tiles as in attention(); few rows (decode) stream the cache once per
// key head. For inference only: records nothing. Throws ShapeError if qkv is a variable of a tape, if
// operands do not fit together, or if a sequence needs more blocks than its table has or a block that does
// not exist; the cache is then unchanged.
Tensor cached_attention(const Tensor& qkv, const HeadLayout& layout, const KvBlocks& cache,
                        const CacheView& view, float scale = 0);

}  // namespace trireme
