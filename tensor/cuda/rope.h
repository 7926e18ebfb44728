// Contract as in tensor/cpu/rope.h, pointers to device memory, enqueued on stream(). y may be x.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// Moves 2 rows width size_of(dtype) bytes, and the angles, which mostly come from the cache.
void rope(const void* x, void* y, DType dtype, int64_t rows, int64_t width, int64_t heads, int64_t head_dim,
          const int32_t* positions, const float* cos, const float* sin, float sign);

}  // namespace trireme::cuda
