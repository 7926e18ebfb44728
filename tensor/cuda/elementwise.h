// Element by element; contracts as in tensor/cpu/kernels.h, pointers to device memory, enqueued on stream().
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// sum[i] += x[i]. Moves 3 n size_of(dtype) bytes.
void add_into(void* sum, const void* x, DType dtype, int64_t n);

// to = the num_bytes at `from`, which is host memory and may be changed on return; nothing waits: they travel with the
// launch. For a few numbers; both multiples of 4, and at most kPutBytes.
constexpr size_t kPutBytes = 3840;
void put_bytes(void* to, const void* from, size_t num_bytes);

}  // namespace trireme::cuda
