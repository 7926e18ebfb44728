// Rows of a table by number.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

//   ids     i32 [T]; may be a tape variable, which carries the tape
//   weight  [V, D]  f32, bf16 or f16: rows [first_row, first_row + V) of the whole table; a negative first_row: the table has
//                   -first_row rows before that of id 0
// Returns [T, D] of weight's dtype: weight[ids[t] - first_row], and 0 for ids outside those rows, so that the sum over
// ranks that split the table is the whole lookup. A wrong id is therefore 0 on every rank: see check_ids().
// Saves ids. Backward adds into weight's slot in order of t, whatever the number of threads.
// Throws ShapeError if ids is not i32 [T], weight is not [V, D] or first_row is not within 2^31.
Tensor embedding(const Tensor& ids, const Tensor& weight, int64_t first_row = 0);

// ids may lie on any device; those of another than the CPU are copied here, which waits for them.
// Throws Error, naming the first one, if an id is not in [0, vocab_size).
void check_ids(const Tensor& ids, int64_t vocab_size);

}  // namespace trireme
