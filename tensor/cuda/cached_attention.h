// Attention over a paged cache on CUDA: the functions of tensor/cpu/cached_attention.h with the same
// arguments, on device memory. The kernels lay out their work from starts and lengths: items, merges,
// partials and scratch are not looked at, but args.attention.rows and .longest and args.longest_keys must be
// set. Enqueued on cuda::stream().
//
// A sequence with one new row, or few that share a key head, streams its cache (decode): its keys are cut
// into chunks, as many as its own number of keys says, each attended by one block, and the chunks' results
// are merged in order. Others go in tiles (prefill). So a sequence's bits do not depend on the batch that it
// is in.
#pragma once

#include "tensor/cpu/cached_attention.h"

namespace trireme::cuda {

void write_cache(const cpu::CachedAttentionArgs& args);
void cached_attention(const cpu::CachedAttentionArgs& args, void* out);

}  // namespace trireme::cuda
