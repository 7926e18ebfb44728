// The mean of the rows of each sequence: a vector for a text.
#pragma once

#include "tensor/ops/attention.h"

namespace trireme {

// y[s] = the mean of x[t], t in segment s; 0 for an empty one.
//   x  [T, D]  f32, bf16 or f16, on the CPU
// Returns [S, D] of x's dtype; sums in f32. Saves where segments begin.
// Throws ShapeError if x is on a device or the segments do not cover its rows.
Tensor segment_mean(const Tensor& x, const Segments& segments);

}  // namespace trireme
