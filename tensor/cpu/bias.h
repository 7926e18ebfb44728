// A vector added to each row, and its gradient. Contracts in ops/linear.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// y[r, c] += bias[c]
TRIREME_CPU_KERNEL(add_bias, (void* y, const void* bias, DType dtype, int64_t rows, int64_t columns),
                   (y, bias, dtype, rows, columns))

// sum[c] = (add ? sum[c] : 0) + x[0, c] + x[1, c] + ... Threads share the columns, so their number changes no bit.
TRIREME_CPU_KERNEL(column_sum, (const void* x, DType dtype, int64_t rows, int64_t columns, bool add, float* sum),
                   (x, dtype, rows, columns, add, sum))

}  // namespace trireme::cpu
