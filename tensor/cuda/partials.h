// The second stage of sums over rows: adds up the sums of row blocks (tensor/cpu/row_blocks.h).
#pragma once

#include <cstdint>

namespace trireme::cuda {

// sum[c] = (add ? sum[c] : 0) + partial[0][c] + partial[1][c] + ..., the partials being `stride` floats apart; in an
// order fixed by their number. With no partials the sum is 0. Enqueued on stream().
void add_partials(float* sum, const float* partial, int64_t num_partials, int64_t stride, int64_t columns,
                  bool add = false);
// Three at once, of partials [num_partials, 3, columns]; a null sum is left out.
void add_three_partials(float* sum0, float* sum1, float* sum2, const float* partial, int64_t num_partials,
                        int64_t columns);

}  // namespace trireme::cuda
