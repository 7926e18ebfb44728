// y = x W^T + b, and its three pieces for layers that put collectives between them.
//   x       [T, in]    f32, bf16 or f16
//   weight  [out, in]  dtype of x
//   bias    [out]      dtype of x, or undefined: no bias
// Sums are in f32, by gemm() of tensor/gemm.h. T = 0 is fine. Throws ShapeError where the operands do not fit.
#pragma once

#include "tensor/tape.h"
#include "tensor/tensor.h"

namespace trireme {

// Returns [T, out] of x's dtype. Saves x (only if the weight has a gradient) and weight. Backward first gives the input
// gradient; those of weight and bias are a weight step of the tape.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

// The pieces below never record.

Tensor linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias);

// y = gelu(x W^T + b), gelu in its tanh form (see ops/gelu.h), and `before`, what the gelu is of, if it is to be kept. On a
// CUDA device all in the product, if cuBLASLt can; gelu is then of what has not been rounded.
struct LinearGelu {
  Tensor before, y;
};
LinearGelu linear_gelu_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, bool keep);
// The way back through the layer after it to what the gelu was of: gelu'(before) (dy W), in the same way.
//   dy [T, out], weight [out, in] of the layer after, before [T, in].
Tensor linear_gelu_backward_input(const Tensor& dy, const Tensor& weight, const Tensor& before);

// dx = dy W, [T, in] of dy's dtype.
Tensor linear_backward_input(const Tensor& dy, const Tensor& weight);

// dW = dy^T x, accumulated in the slot's f32 [out, in]: written if the slot is empty, else added.
void linear_backward_weight(const Tensor& dy, const Tensor& x, GradSlot& weight_grad);

// db[o] = the sum over tokens of dy[t, o], accumulated in the slot's f32 [out] in the same way. The number of threads
// does not change its bits.
void linear_backward_bias(const Tensor& dy, GradSlot& bias_grad);

// Its products, both directions.
OpWork linear_work(int64_t tokens, const Tensor& weight);

}  // namespace trireme
