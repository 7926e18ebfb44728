// A vector added to each row, and its gradient; contracts as in tensor/cpu/bias.h, pointers to device memory, enqueued
// on stream(). With s = size_of(dtype):
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// y[r, c] += bias[c]. Moves 2 s rows columns bytes.
void add_bias(void* y, const void* bias, DType dtype, int64_t rows, int64_t columns);

// sum[c] = (add ? sum[c] : 0) + x[0, c] + x[1, c] + ...: over blocks of rows, then over the blocks, in orders fixed by
// the shape. Takes its scratch, at most 128 * columns floats, from the allocator. Moves s rows columns bytes.
void column_sum(const void* x, DType dtype, int64_t rows, int64_t columns, bool add, float* sum);

}  // namespace trireme::cuda
