// Row-wise kernels of the softmax cross entropy; contracts as in tensor/cpu/cross_entropy.h, pointers (all of them: also
// labels, loss and correct) to device memory, enqueued on stream(). A row is one block of threads, and its sums are in
// an order fixed by its length and alignment. With s = size_of(dtype):
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace trireme::cuda {

// Moves s rows valid bytes.
void row_max(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum);

// Moves s rows valid bytes.
void row_argmax(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum,
                int32_t* index);

// Moves s rows valid bytes.
void row_sum_exp_and_target(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                            const float* maximum, const int32_t* labels, int64_t vocab_start, float* sum_exp,
                            float* target);

// gradient may be logits. Moves s rows (columns + valid) bytes.
void softmax_minus_onehot(const void* logits, void* gradient, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                          const float* maximum, const float* sum_exp, const int32_t* labels, int64_t vocab_start,
                          float scale);

// Moves s rows columns bytes: one pass.
void cross_entropy_forward(const void* logits, DType dtype, int64_t rows, int64_t columns, const int32_t* labels,
                           float* lse, double* loss, uint8_t* correct);

// What the host would otherwise add up row by row; the sums are in double, in an order fixed by `rows`.
// totals[0] += loss, totals[1] += tokens, totals[2] += correct ones; rows with an ignored label count for nothing.
// The totals are doubles on the device, 0 before the first call; counts are exact to 2^53.

// From the results of cross_entropy_forward.
void add_cross_entropy_totals(double* totals, const double* loss, const uint8_t* correct, const int32_t* labels,
                              int64_t rows);
// From what the ranks of a split vocabulary have agreed on: loss[r] = log(sum_exp[r]) + maximum[r] - target[r].
// totals[2] is left as it is.
void add_vocabulary_totals(double* totals, const float* maximum, const float* sum_exp, const float* target,
                           const int32_t* labels, int64_t rows);

}  // namespace trireme::cuda
