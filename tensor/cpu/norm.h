// LayerNorm and RMSNorm over rows, each alone or behind residual + dropout(x + bias) in the same pass.
#pragma once

#include <cstdint>

#include "tensor/cpu/dropout.h"
#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

struct NormForward {
  DType dtype = DType::kF32;
  int64_t rows = 0, dim = 0;
  bool centered = true;             // LayerNorm: the mean is taken away and a bias added; else RMSNorm
  float eps = 0;
  const void* x = nullptr;          // [rows, dim]
  const void* residual = nullptr;   // [rows, dim]; null: the norm is that of x itself
  const void* bias = nullptr;       // [dim], added to x before dropout; may be null
  DropoutMask mask;
  void* sum = nullptr;              // [rows, dim] out, with a residual: what is normalised
  const void* weight = nullptr;     // [dim]
  const void* norm_bias = nullptr;  // [dim], if centered
  void* normed = nullptr;           // [rows, dim] out
  float* mean = nullptr;            // [rows] out if centered; may be null
  float* rstd = nullptr;            // [rows] out; may be null
};
TRIREME_CPU_KERNEL(norm_forward, (const NormForward& a), (a))

struct NormBackward {
  DType dtype = DType::kF32;
  int64_t rows = 0, dim = 0;
  bool centered = true;
  const void* input = nullptr;      // [rows, dim]: what was normalised
  const void* weight = nullptr;
  const float* mean = nullptr;      // if centered
  const float* rstd = nullptr;
  const void* dnormed = nullptr;    // [rows, dim]
  const void* dsum = nullptr;       // [rows, dim], the gradient that reached the norm's input otherwise; may be null
  void* dinput = nullptr;           // [rows, dim] out: the whole gradient of the norm's input
  DropoutMask mask;
  void* dx = nullptr;               // [rows, dim] out: mask(dinput); null: not wanted
  float* dweight = nullptr;         // [dim] out
  float* dnorm_bias = nullptr;      // [dim] out, if centered
  float* dbias = nullptr;           // [dim] out: column sums of mask(dinput); null: not wanted
  float* partial = nullptr;         // scratch: column_partials(rows) * 3 * dim floats
};
TRIREME_CPU_KERNEL(norm_backward, (const NormBackward& a), (a))

}  // namespace trireme::cpu
