// The elementwise and row-wise CPU kernels. Pointers are to contiguous rows; DType says how floats are stored
// (f32, bf16, f16); sums are in f32. Each kernel splits its rows over the OpenMP threads of the caller.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

// sum[i] += x[i]
TRIREME_CPU_KERNEL(add_into, (void* sum, const void* x, DType dtype, int64_t n), (sum, x, dtype, n))

}  // namespace trireme::cpu
