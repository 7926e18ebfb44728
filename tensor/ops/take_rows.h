// Some rows of an activation.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace trireme {

// y[i] = x[rows[i]].
//   x  [T, D]  f32, bf16 or f16
// Returns [rows.size(), D]. Backward adds into dx in order of i. Saves the numbers.
// Throws ShapeError if a number is not in [0, T).
Tensor take_rows(const Tensor& x, const std::vector<int32_t>& rows);

// The same of a tensor [T] or [T, D] of any dtype; records nothing.
Tensor copy_rows(const Tensor& x, const std::vector<int32_t>& rows);

}  // namespace trireme
