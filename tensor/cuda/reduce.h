// Whole-array kernels; contracts as in tensor/cpu/reduce.h, pointers to device memory, enqueued on stream(). With
// s = size_of(dtype):
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// partial (device): one double for each cpu::kSumBlock elements. Moves s n bytes.
void sum_of_squares(double* partial, const void* x, DType dtype, int64_t n);
// *total = partial[0] + partial[1] + ..., in an order fixed by their number; both on the device. The second stage of
// sum_of_squares: one number travels to the host.
void sum_doubles(double* total, const double* partial, int64_t count);
// finite: one byte on the device. Moves s n bytes.
void all_finite(bool* finite, const void* x, DType dtype, int64_t n);
// Moves 2 s n bytes.
void scale_in_place(void* x, float factor, DType dtype, int64_t n);
// y += a x. Moves 3 s n bytes.
void axpy(void* y, float a, const void* x, DType dtype, int64_t n);
// Moves s n bytes.
void fill(void* x, float value, DType dtype, int64_t n);
// Moves n (size_of(to) + size_of(from)) bytes.
void cast(void* y, DType to, const void* x, DType from, int64_t n);
// In the largest words, up to 16 bytes, that pointers, row_bytes and stride_bytes allow. Moves 2 rows row_bytes bytes.
void copy_rows(void* y, const void* x, int64_t rows, int64_t row_bytes, int64_t stride_bytes);

}  // namespace trireme::cuda
