// y = gelu(x + bias), gelu(x) = x * P(N(0,1) <= x). Hendrycks & Gimpel 2016, arXiv:1606.08415.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace trireme {

enum class Gelu : uint8_t {
  kTanh,  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): gelu_new, gelu_pytorch_tanh
  kErf,   // x/2 (1 + erf(x / sqrt 2)): gelu
};

//   x     [T, F]  f32, bf16 or f16
//   bias  [F]     x's dtype; undefined: none
// Returns [T, F]; computed in f32. Saves x (and bias) alone.
// Throws ShapeError if bias does not match x.
Tensor bias_gelu(const Tensor& x, const Tensor& bias, Gelu kind);

}  // namespace trireme
