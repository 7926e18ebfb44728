// The residual stream of a transformer: sums, each alone or with the norm that follows in the same pass.
#pragma once

#include "tensor/ops/dropout.h"
#include "tensor/tensor.h"

namespace trireme {

// a + b, of one shape and dtype.
Tensor add(const Tensor& a, const Tensor& b);

// residual + dropout(x + bias).
//   residual, x  [T, D]  f32, bf16 or f16
//   bias         [D]     x's dtype; undefined: none
// Returns [T, D]. Saves nothing but the dropout's row keys.
// Throws ShapeError if the operands do not fit together; of dropout as dropout() does.
Tensor add_bias_dropout(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout);

struct Normed {
  Tensor sum;     // residual + dropout(x + bias), rounded to the dtype
  Tensor normed;  // the norm of `sum`
};

// The sum, and its norm (see layer_norm.h, rms_norm.h), bit for bit what the two ops one after the other give. Backward
// takes the gradients of both outputs, either of which may be missing. Saves `sum`, weight, the row keys and 8 (RMSNorm
// 4) bytes a token.
// Throws as add_bias_dropout() and the norm do.
Normed residual_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout,
                           const Tensor& weight, const Tensor& norm_bias, float eps = 1e-5f);
Normed residual_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout,
                         const Tensor& weight, float eps = 1e-6f);

}  // namespace trireme
