// The three products of a linear layer with operands in 8-bit floats (Micikevicius et al. 2022, arXiv:2209.05433): weights and
// activations in e4m3, gradients in e5m2, each matrix times a power of two that its largest element decides (tensor/fp8.h),
// found anew for every product ("current" scaling). Sums in f32; results, and gradients of weights, as in ops/linear.h, whose
// contracts hold but for:
//   in and out are multiples of 16, as the processors' products want them.
// On the CPU the operands are rounded alike and multiplied in f32: slower than without, and for seeing what it does to a run.
// Nothing records.
#pragma once

#include "tensor/tape.h"
#include "tensor/tensor.h"

namespace trireme {

constexpr int64_t kFp8Multiple = 16;

Tensor fp8_linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias);
Tensor fp8_linear_backward_input(const Tensor& dy, const Tensor& weight);
void fp8_linear_backward_weight(const Tensor& dy, const Tensor& x, GradSlot& weight_grad);

// Throws ConfigError where `device` has no 8-bit products: CUDA devices before compute capability 8.9.
void require_fp8_products(Device device);

}  // namespace trireme
