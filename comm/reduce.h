// The arithmetic of all_reduce and reduce_scatter, the same for every backend: elementwise over ranks, in the order of
// the ranks; where a group has several hosts, first over the ranks of each host and then over the hosts. So bits depend on
// which ranks share a host, but neither on the size of a tensor nor on the way that it takes.
#pragma once

#include <cstdint>
#include <span>

#include "comm/communicator.h"

namespace trireme {

// How results are written. Past the caches leaves them to what is needed next, and does not read a line before writing it:
// for results larger than the caches. Falls back on kCached where the processor or the alignment (64) does not allow it.
enum class Stores : uint8_t { kCached, kPastCaches };

// out[i] = op over r of parts[r][i], for i < n: ((parts[0] op parts[1]) op parts[2]) ... Floats in f32, rounded once at
// the end. Every one of outs receives the result; each may be one of the parts, and no other overlap is allowed. At least
// one part. `dtype` is f32, bf16, f16, i32 or i64.
void reduce_in_rank_order(std::span<const void* const> parts, std::span<void* const> outs, int64_t n, DType dtype,
                          ReduceOp op, Stores stores = Stores::kCached);
inline void reduce_in_rank_order(std::span<const void* const> parts, void* out, int64_t n, DType dtype, ReduceOp op) {
  reduce_in_rank_order(parts, std::span<void* const>(&out, 1), n, dtype, op);
}

// The same, with parts in groups that stand one after another: each group by itself, then the groups' results in order. So
// ranks are summed that lie on several hosts, in one step; or in two, through f32 where elements are floats: partial_type.
void reduce_in_groups(std::span<const void* const> parts, std::span<const int> group_sizes, void* out, int64_t n,
                      DType dtype, ReduceOp op);
DType partial_type(DType dtype);
void reduce_to_partial(std::span<const void* const> parts, void* partial, int64_t n, DType dtype, ReduceOp op);
void reduce_partials(std::span<const void* const> partials, void* out, int64_t n, DType dtype, ReduceOp op);

// memcpy of ranges that do not overlap, or are the same.
void copy_bytes(void* to, const void* from, size_t num_bytes, Stores stores = Stores::kCached);

}  // namespace trireme
