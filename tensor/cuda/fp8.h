// Matrices in 8-bit floats; contracts as in tensor/cpu/fp8.h, pointers to device memory, enqueued on stream(). With
// s = size_of(dtype):
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/fp8.h"

namespace trireme::cuda {

// scales: two floats on the device. Scratch of at most 1024 words from the allocator. Moves s n bytes.
void fp8_scales(float* scales, const void* x, DType dtype, int64_t n, Fp8 type);
// Moves (s + 1) rows columns bytes.
void fp8_quantize(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns, Fp8 type,
                  const float* scales);
// The same, by way of tiles in shared memory.
void fp8_quantize_transposed(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns,
                             Fp8 type, const float* scales);

}  // namespace trireme::cuda
