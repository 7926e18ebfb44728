// y[t] = x[t] * weight / sqrt(mean(x[t]^2) + eps)
// Zhang & Sennrich 2019, arXiv:1910.07467.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

//   x       [T, D]  f32, bf16 or f16
//   weight  [D]     x's dtype
// Returns [T, D]; sums in f32. Saves x, weight and 4 bytes a token.
// Throws ShapeError if weight does not match x, ConfigError unless eps > 0.
Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps = 1e-6f);

}  // namespace trireme
