// Element by element; contracts as in tensor/cpu/kernels.h, pointers to device memory, enqueued on stream().
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// sum[i] += x[i]. Moves 3 n size_of(dtype) bytes.
void add_into(void* sum, const void* x, DType dtype, int64_t n);

}  // namespace trireme::cuda
