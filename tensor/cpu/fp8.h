// Matrices in 8-bit floats. Contracts in ops/fp8_linear.h. scales[0] is what elements were multiplied by, scales[1] its
// inverse.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"
#include "tensor/fp8.h"

namespace trireme::cpu {

// By fp8_scale_for() of the largest |x[i]|.
TRIREME_CPU_KERNEL(fp8_scales, (float* scales, const void* x, DType dtype, int64_t n, Fp8 type), (scales, x, dtype, n, type))

// out[r * ld_out + c] = x[r * columns + c] * scales[0], for c < columns; zeros from there to ld_out.
TRIREME_CPU_KERNEL(fp8_quantize,
                   (uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns, Fp8 type,
                    const float* scales),
                   (out, ld_out, x, dtype, rows, columns, type, scales))

// out[c * ld_out + r] = x[r * columns + c] * scales[0], for r < rows; zeros from there to ld_out.
TRIREME_CPU_KERNEL(fp8_quantize_transposed,
                   (uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns, Fp8 type,
                    const float* scales),
                   (out, ld_out, x, dtype, rows, columns, type, scales))

// y[i] = x[i] * scales[1]
TRIREME_CPU_KERNEL(fp8_widen, (float* y, const uint8_t* x, int64_t n, Fp8 type, const float* scales),
                   (y, x, n, type, scales))

}  // namespace trireme::cpu
