// Gathering rows of a table and scattering their gradients; contracts in ops/embedding.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// y[t] = weight[ids[t] - first_row], or 0 for ids outside [first_row, first_row + num_rows).
TRIREME_CPU_KERNEL(embedding,
                   (void* y, const int32_t* ids, const void* weight, DType dtype, int64_t tokens, int64_t first_row,
                    int64_t num_rows, int64_t dim),
                   (y, ids, weight, dtype, tokens, first_row, num_rows, dim))

// dweight[ids[t] - first_row] += dy[t] in order of t, for ids inside.
TRIREME_CPU_KERNEL(embedding_backward,
                   (float* dweight, const int32_t* ids, const void* dy, DType dtype, int64_t tokens, int64_t first_row,
                    int64_t num_rows, int64_t dim),
                   (dweight, ids, dy, dtype, tokens, first_row, num_rows, dim))

}  // namespace trireme::cpu
