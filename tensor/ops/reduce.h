// Arithmetic on whole tensors outside the tape: gradient norms, clipping, checks for overflow. None of it records.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace trireme {

// Sum of x[i]^2 in double, over blocks of fixed size added in order: the same bits whatever the number of threads.
// Any floating dtype.
double sum_of_squares(const Tensor& x);
// The same of several tensors together, on one device: there the host waits once.
double sum_of_squares(const std::vector<Tensor>& tensors);

// Whether no element is infinite or NaN. Any floating dtype.
bool all_finite(const Tensor& x);

// x *= factor, computed in f32.
void scale_in_place(const Tensor& x, float factor);

// y += a x, of one shape and dtype, computed in f32.
void axpy(float a, const Tensor& x, const Tensor& y);

// x[i] = value
void fill(const Tensor& x, float value);

// Columns [begin, end) of src [R, C], of any dtype, as a new tensor [R, end - begin].
Tensor copy_columns(const Tensor& src, int64_t begin, int64_t end);

}  // namespace trireme
