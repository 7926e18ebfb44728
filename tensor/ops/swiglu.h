// y = silu(gate) * up, silu(g) = g / (1 + e^-g). Shazeer 2020, arXiv:2002.05202.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

//   gate_up  [T, 2F]  f32, bf16 or f16: gate in columns [0, F), up in [F, 2F)
// Returns [T, F]; computed in f32. Saves gate_up.
// Throws ShapeError if the number of columns is odd.
Tensor swiglu(const Tensor& gate_up);

}  // namespace trireme
