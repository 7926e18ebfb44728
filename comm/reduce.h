// The arithmetic of all_reduce and reduce_scatter, the same for every backend: elementwise over ranks, in the order of
// the ranks, so that every backend and every layout of hosts gives the same bits.
#pragma once

#include <cstdint>
#include <span>

#include "comm/communicator.h"

namespace trireme {

// out[i] = op over r of parts[r][i], for i < n: ((parts[0] op parts[1]) op parts[2]) ... Floats in f32, rounded once at
// the end. out, and out2 if not null, receive the result; either may be one of the parts. At least one part.
// `dtype` is f32, bf16, f16, i32 or i64.
void reduce_in_rank_order(std::span<const void* const> parts, void* out, void* out2, int64_t n, DType dtype,
                          ReduceOp op);

}  // namespace trireme
