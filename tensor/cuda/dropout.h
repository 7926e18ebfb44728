// Dropout over rows, alone or as the sum residual + dropout(x + bias); contracts as in tensor/cpu/dropout.h, pointers
// (the mask's row keys too) to device memory, enqueued on stream(). The masks are the same bits as on the CPU. With
// s = size_of(dtype) and n = rows * dim:
#pragma once

#include <cstdint>

#include "tensor/cpu/dropout.h"
#include "tensor/dtype.h"

namespace trireme::cuda {

// Moves 2 s n bytes.
void dropout(void* y, const void* x, DType dtype, int64_t rows, int64_t dim, const cpu::DropoutMask& mask);

// y may be residual or x. Moves 3 s n bytes.
void add_bias_dropout(void* y, const void* residual, const void* x, const void* bias, DType dtype, int64_t rows,
                      int64_t dim, const cpu::DropoutMask& mask);

// partial: cpu::column_partials(rows) * dim floats of device memory; null without dbias. Moves 2 s n bytes, or s n
// without dx.
void add_bias_dropout_backward(void* dx, float* dbias, float* partial, const void* dy, DType dtype, int64_t rows,
                               int64_t dim, const cpu::DropoutMask& mask);

}  // namespace trireme::cuda
