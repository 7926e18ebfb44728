// How kernels sum over rows (bias and weight gradients) with a result that does not depend on the number of threads:
// rows are cut into blocks by their count alone, each block sums its rows in order into floats of its own, and the
// blocks are then added in order.
#pragma once

#include <cstdint>

namespace trireme::cpu {

// Rows of a block: at least 16, and at most 128 blocks.
static constexpr int64_t rows_per_block(int64_t rows) {
  const int64_t even = (rows + 127) / 128;
  return even < 16 ? 16 : even;
}
// The number of blocks, i.e. of partial sums per column.
static constexpr int64_t column_partials(int64_t rows) {
  return (rows + rows_per_block(rows) - 1) / rows_per_block(rows);
}

}  // namespace trireme::cpu
