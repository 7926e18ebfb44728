// Dropout over rows, alone or as the sum residual + dropout(x + bias). Layouts as in kernels.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// Element (t, c) is dropped if its Philox word for (seed, stream, row_keys[t], first_column + c) is below threshold,
// and scaled otherwise (see tensor/rng.h).
struct DropoutMask {
  const int64_t* row_keys = nullptr;  // null: no dropout
  uint64_t seed = 0;
  uint32_t stream = 0;
  uint32_t threshold = 0;
  float scale = 1;
  int64_t first_column = 0;
  bool active() const { return row_keys != nullptr; }
};

// y = dropout(x)
TRIREME_CPU_KERNEL(dropout, (void* y, const void* x, DType dtype, int64_t rows, int64_t dim, const DropoutMask& mask),
                   (y, x, dtype, rows, dim, mask))

// y = residual + dropout(x + bias); bias may be null. y may be residual or x.
TRIREME_CPU_KERNEL(add_bias_dropout,
                   (void* y, const void* residual, const void* x, const void* bias, DType dtype, int64_t rows,
                    int64_t dim, const DropoutMask& mask),
                   (y, residual, x, bias, dtype, rows, dim, mask))

// dx = dropout(dy), not written if dx is null; dbias[c] = sum over rows of dx (before it is rounded to dtype).
// partial: column_partials(rows) * dim floats of scratch.
TRIREME_CPU_KERNEL(add_bias_dropout_backward,
                   (void* dx, float* dbias, float* partial, const void* dy, DType dtype, int64_t rows, int64_t dim,
                    const DropoutMask& mask),
                   (dx, dbias, partial, dy, dtype, rows, dim, mask))

}  // namespace trireme::cpu
