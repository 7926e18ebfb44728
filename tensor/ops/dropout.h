// Dropout with masks that are recomputed and never stored. Srivastava et al. 2014 (JMLR 15); counter-based as in
// tensor/rng.h, so that the mask of an element depends on its token and feature and on no layout.
#pragma once

#include "tensor/cpu/dropout.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace trireme {

// The rule, and what the rows of the operand are. Element (t, c) is dropped if
//   philox(rule.seed, rule.stream, row_keys[t], column / 4)[column % 4] < rule.threshold(),  column = first_column + c,
// and multiplied by 1 / (1 - p) otherwise.
struct DropoutRows {
  Dropout rule;              // inactive (p = 0): row_keys may be undefined and nothing is drawn
  Tensor row_keys;           // i64 [rows]: sample number * 2^20 + index within the sample
  int64_t first_column = 0;  // the global index of local column 0
};

// y = dropout(x).
//   x  [rows, columns]  f32, bf16 or f16
// Returns x itself if the rule is inactive. Saves row_keys.
// Throws ConfigError unless 0 <= p < 1, ShapeError if row_keys is not i64 [rows] or first_column is negative.
Tensor dropout(const Tensor& x, const DropoutRows& rows);

// The checked form that kernels take; its pointer is into rows.row_keys. For ops that fuse dropout.
cpu::DropoutMask dropout_mask(const char* op, const DropoutRows& rows, const Tensor& x);

}  // namespace trireme
