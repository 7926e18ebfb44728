#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// y = x with the first `heads` heads of each row turned by the angles of its position (contract:
// tensor/ops/rope.h), and the columns from heads * head_dim to `width` copied. sign -1 turns back. cos and
// sin are [positions, head_dim / 2].
TRIREME_CPU_KERNEL(rope,
                   (const void* x, void* y, DType dtype, int64_t rows, int64_t width, int64_t heads,
                    int64_t head_dim, const int32_t* positions, const float* cos, const float* sin,
                    float sign),
                   (x, y, dtype, rows, width, heads, head_dim, positions, cos, sin, sign))

}  // namespace trireme::cpu
