// Activations of the few rows that a task's head has. On the CPU alone: ShapeError for a tensor on a device.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

// y = tanh(x), y = max(x, 0).
//   x  [rows, columns]  f32, bf16 or f16
// Computed in f32. Saves y.
Tensor tanh_of(const Tensor& x);
Tensor relu_of(const Tensor& x);

}  // namespace trireme
