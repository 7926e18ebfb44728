// Whole-array kernels: sums, scaling, fills, conversions. Contracts in ops/reduce.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

static constexpr int64_t kSumBlock = 1 << 14;  // elements that one partial sum covers

// partial[b] = sum of x[i]^2 over block b of kSumBlock elements, in double.
TRIREME_CPU_KERNEL(sum_of_squares, (double* partial, const void* x, DType dtype, int64_t n), (partial, x, dtype, n))
// *finite = no element is infinite or NaN.
TRIREME_CPU_KERNEL(all_finite, (bool* finite, const void* x, DType dtype, int64_t n), (finite, x, dtype, n))
TRIREME_CPU_KERNEL(scale_in_place, (void* x, float factor, DType dtype, int64_t n), (x, factor, dtype, n))
// y += a x
TRIREME_CPU_KERNEL(axpy, (void* y, float a, const void* x, DType dtype, int64_t n), (y, a, x, dtype, n))
TRIREME_CPU_KERNEL(fill, (void* x, float value, DType dtype, int64_t n), (x, value, dtype, n))
// Both dtypes floating.
TRIREME_CPU_KERNEL(cast, (void* y, DType to, const void* x, DType from, int64_t n), (y, to, x, from, n))
// y[r] = row_bytes bytes from x + r * stride_bytes.
TRIREME_CPU_KERNEL(copy_rows, (void* y, const void* x, int64_t rows, int64_t row_bytes, int64_t stride_bytes),
                   (y, x, rows, row_bytes, stride_bytes))

}  // namespace trireme::cpu
