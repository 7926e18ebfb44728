// LayerNorm and RMSNorm over rows, each alone or behind residual + dropout(x + bias) in the same pass; contracts as in
// tensor/cpu/norm.h, pointers to device memory, enqueued on stream(). With s = size_of(dtype) and n = rows * dim:
#pragma once

#include "tensor/cpu/norm.h"

namespace trireme::cuda {

// Moves 2 s n bytes, with a residual 4 s n. Rows wider than 8192, or not of whole 16 bytes, read what they normalise
// twice more.
void norm_forward(const cpu::NormForward& a);

// a.partial: cpu::column_partials(rows) * 3 * dim floats of device memory. Moves 3 s n bytes, one s n more for dsum and
// for dx each. Rows wider than 4096 (8192 in 16 bits, without dx and dbias), or not of whole 16 bytes, read their inputs
// twice, and keep the column sums in a.partial.
void norm_backward(const cpu::NormBackward& a);

}  // namespace trireme::cuda
