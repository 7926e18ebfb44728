// The activations between the two halves of an MLP; contracts as in tensor/cpu/activation.h, pointers to device memory,
// enqueued on stream(). With s = size_of(dtype) and n = rows * dim. exp, tanh's sigmoid and erf are accurate to a few
// ulp in f32; 16-bit storage takes the hardware's 2^x and division, which are good to 2 ulp of f32.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// Moves 2 s n bytes.
void bias_gelu(void* y, const void* x, const void* bias, DType dtype, int64_t rows, int64_t dim, bool exact);

// partial: cpu::column_partials(rows) * dim floats of device memory; null without dbias. Moves 3 s n bytes.
void bias_gelu_backward(void* dx, float* dbias, float* partial, const void* dy, const void* x, const void* bias,
                        DType dtype, int64_t rows, int64_t dim, bool exact);

// Moves 3 s n bytes.
void swiglu(void* y, const void* gate_up, DType dtype, int64_t rows, int64_t dim);
// Moves 5 s n bytes.
void swiglu_backward(void* dgate_up, const void* dy, const void* gate_up, DType dtype, int64_t rows, int64_t dim);

}  // namespace trireme::cuda
