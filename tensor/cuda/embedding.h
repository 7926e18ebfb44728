// Gathering rows of a table and scattering their gradients; contracts as in tensor/cpu/embedding.h, pointers (the ids
// too) to device memory, enqueued on stream(). With s = size_of(dtype) and n = tokens * dim:
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// Moves 2 s n bytes.
void embedding(void* y, const int32_t* ids, const void* weight, DType dtype, int64_t tokens, int64_t first_row,
               int64_t num_rows, int64_t dim);

// dweight[ids[t] - first_row] += dy[t], each element in order of t, as on the CPU, bit for bit. Takes its scratch,
// 4 (3 num_rows + 2 tokens + 1) bytes, from the allocator. Moves s n bytes, 8 bytes for each element of a row of
// dweight that a token names, and about 40 bytes a token. tokens and num_rows are below 2^31.
void embedding_backward(float* dweight, const int32_t* ids, const void* dy, DType dtype, int64_t tokens,
                        int64_t first_row, int64_t num_rows, int64_t dim);

}  // namespace trireme::cuda
