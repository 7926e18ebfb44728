// Row-wise kernels of the softmax cross entropy. Logits are [rows, columns]; of these, the first `valid` columns count,
// the others are padding. Contracts in ops/cross_entropy.h. Each row is summed by one thread in an order fixed by its
// length, so the number of threads changes no bit.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

static constexpr int32_t kIgnoredLabel = -100;

TRIREME_CPU_KERNEL(row_max,
                   (const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum),
                   (logits, dtype, rows, columns, valid, maximum))

// index[r] is the first column that holds the maximum; -1 if no element is above -inf.
TRIREME_CPU_KERNEL(row_argmax,
                   (const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum,
                    int32_t* index),
                   (logits, dtype, rows, columns, valid, maximum, index))

TRIREME_CPU_KERNEL(row_sum_exp_and_target,
                   (const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                    const float* maximum, const int32_t* labels, int64_t vocab_start, float* sum_exp, float* target),
                   (logits, dtype, rows, columns, valid, maximum, labels, vocab_start, sum_exp, target))

// gradient may be logits. sum_exp null: all ones.
TRIREME_CPU_KERNEL(softmax_minus_onehot,
                   (const void* logits, void* gradient, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                    const float* maximum, const float* sum_exp, const int32_t* labels, int64_t vocab_start,
                    float scale),
                   (logits, gradient, dtype, rows, columns, valid, maximum, sum_exp, labels, vocab_start, scale))

// In one pass over memory: lse[r] = log sum exp of the row, loss[r] = lse - the label's logit, correct[r] = the label's
// logit is the row's maximum. Ignored rows are not read and give 0, 0, 0.
TRIREME_CPU_KERNEL(cross_entropy_forward,
                   (const void* logits, DType dtype, int64_t rows, int64_t columns, const int32_t* labels, float* lse,
                    double* loss, uint8_t* correct),
                   (logits, dtype, rows, columns, labels, lse, loss, correct))

}  // namespace trireme::cpu
