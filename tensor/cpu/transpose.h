#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"

namespace trireme::cpu {

// to[c * ld_to + r] = from[r * ld_from + c] for r in [0, rows) and c in [0, columns), elements of 2 or 4 bytes moved as they
// are. The arrays do not overlap.
TRIREME_CPU_KERNEL(transpose,
                   (const void* from, int64_t ld_from, void* to, int64_t ld_to, int64_t rows, int64_t columns,
                    int64_t element_bytes),
                   (from, ld_from, to, ld_to, rows, columns, element_bytes))

}  // namespace trireme::cpu
