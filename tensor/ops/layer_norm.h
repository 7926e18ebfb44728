// y[t] = (x[t] - mean(x[t])) / sqrt(var(x[t]) + eps) * weight + bias
// Ba et al. 2016, arXiv:1607.06450. The variance divides by the number of columns.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

//   x             [T, D]  f32, bf16 or f16
//   weight, bias  [D]     x's dtype
// Returns [T, D]; sums in f32. Saves x, weight and 8 bytes a token.
// Throws ShapeError if weight or bias does not match x, ConfigError unless eps > 0.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps = 1e-5f);

}  // namespace trireme
