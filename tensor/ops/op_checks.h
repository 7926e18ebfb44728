// What the row-wise ops check of their operands, and how they hand on gradients of parameters.
#pragma once

#include "tensor/tape.h"
#include "tensor/tensor.h"

namespace trireme {

// x is [rows, columns] of a floating dtype with at least one column.
void check_rows(const char* op, const char* name, const Tensor& x);
// `vector` is [columns of x] and has x's dtype.
void check_vector(const char* op, const char* name, const Tensor& vector, const Tensor& x);
// a and b have one shape and dtype.
void check_alike(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b);

// Gives `grad` (f32) as the gradient of input i, which had `dtype`: into its slot as it is, to a variable in its dtype.
void add_parameter_grad(Grads& grads, int i, const Tensor& grad, DType dtype);

}  // namespace trireme
