// Attention on CUDA: the functions of tensor/cpu/attention.h with the same arguments, on device memory.
//
// Work is laid out by the kernels from `starts`: `items` are not looked at (null will do), but args.rows,
// args.segments and args.longest must be set. Enqueued on cuda::stream(); all buffers must live until it has
// run.
//   16-bit storage with head_dim <= 128, a multiple of 8, and 16-byte aligned rows runs on tensor cores:
//   weights and score gradients are rounded to the storage type before the second product of each pair. All
//   else, f32 first of all, runs by f32 multiply-adds, for any head_dim.
// Results are the same bits in every run, and do not depend on what other segments are in the call.
#pragma once

#include "tensor/cpu/attention.h"

namespace trireme::cuda {

// The arrays of `args` (starts, head_seeds, row_keys) lie on the device; args.scratch is not used.
void attention_forward(const cpu::AttentionArgs& args, const cpu::AttentionItem* items, int64_t num_items,
                       void* out, float* lse);

// d_qkv, every element of it: the query gradients by blocks of queries, then those of keys and values by
// blocks of keys, each computing the scores anew, so that no two blocks add to one place.
void attention_backward(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                        const cpu::AttentionItem* items, int64_t num_items);
// Its two halves.
void attention_backward_queries(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                                const cpu::AttentionItem* items, int64_t num_items);
void attention_backward_keys(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                             const cpu::AttentionItem* items, int64_t num_items);

}  // namespace trireme::cuda
