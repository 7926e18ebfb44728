// The activations between the two halves of an MLP. Layouts as in kernels.h; contracts in ops/gelu.h, ops/swiglu.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// y = gelu(x + bias); bias [dim] may be null. exact: by erf, else by tanh.
TRIREME_CPU_KERNEL(bias_gelu,
                   (void* y, const void* x, const void* bias, DType dtype, int64_t rows, int64_t dim, bool exact),
                   (y, x, bias, dtype, rows, dim, exact))

// dx = dy * gelu'(x + bias); dbias[c] = sum over rows of dx, if not null (partial: column_partials(rows) * dim floats).
TRIREME_CPU_KERNEL(bias_gelu_backward,
                   (void* dx, float* dbias, float* partial, const void* dy, const void* x, const void* bias,
                    DType dtype, int64_t rows, int64_t dim, bool exact),
                   (dx, dbias, partial, dy, x, bias, dtype, rows, dim, exact))

// gate_up [rows, 2 dim], y [rows, dim]: y = silu(gate) * up.
TRIREME_CPU_KERNEL(swiglu, (void* y, const void* gate_up, DType dtype, int64_t rows, int64_t dim),
                   (y, gate_up, dtype, rows, dim))
TRIREME_CPU_KERNEL(swiglu_backward,
                   (void* dgate_up, const void* dy, const void* gate_up, DType dtype, int64_t rows, int64_t dim),
                   (dgate_up, dy, gate_up, dtype, rows, dim))

}  // namespace trireme::cpu
