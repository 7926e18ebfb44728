// The backward of both norms, shared by the plain and the residual ops.
#pragma once

#include "tensor/cpu/norm.h"
#include "tensor/tensor.h"

namespace trireme {

struct SavedNorm {
  bool centered = true;
  Tensor input;   // [T, D], what was normalised
  Tensor weight;  // [D]
  Tensor mean;    // f32 [T], if centered
  Tensor rstd;    // f32 [T]
};

struct NormGrads {
  Tensor input;      // [T, D], dsum included
  Tensor dropped;    // [T, D], mask(input), if asked for and the mask is active
  Tensor weight;     // f32 [D]
  Tensor norm_bias;  // f32 [D], if centered
  Tensor bias;       // f32 [D], column sums of mask(input), if asked for
};

// dsum may be undefined.
NormGrads norm_backward(const SavedNorm& saved, const Tensor& dnormed, const Tensor& dsum,
                        const cpu::DropoutMask& mask, bool wants_dropped, bool wants_bias);

// Checks the operands of a norm of x, allocates its outputs and fills in the kernel's arguments but for x, residual,
// bias, mask and sum. `saving`: mean and rstd are kept in `saved` for backward.
cpu::NormForward prepare_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& norm_bias,
                              bool centered, float eps, bool saving, Tensor& normed, SavedNorm& saved);

}  // namespace trireme
