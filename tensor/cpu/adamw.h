// Optimizer steps over flat arrays; contracts in ops/adamw.h.
#pragma once

#include <cstdint>

#include "tensor/cpu/isa.h"
#include "tensor/dtype.h"

namespace trireme::cpu {

struct AdamwArgs {
  float* param = nullptr;
  void* copy = nullptr;  // of copy_dtype, or null
  DType copy_dtype = DType::kF32;
  const float* grad = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  int64_t n = 0;
  float grad_scale = 1, decay = 1;  // decay: 1 - lr * weight_decay
  float beta1 = 0, beta2 = 0;
  float one_minus_beta1 = 0, one_minus_beta2 = 0;  // rounded from double: 1 - beta in f32 is off by 1e-5 for 0.999
  float step_size = 0;       // lr / (1 - beta1^step)
  float inv_sqrt_bias2 = 0;  // 1 / sqrt(1 - beta2^step)
  float eps = 0;
};
TRIREME_CPU_KERNEL(adamw, (const AdamwArgs& a), (a))

struct SgdArgs {
  float* param = nullptr;
  void* copy = nullptr;
  DType copy_dtype = DType::kF32;
  const float* grad = nullptr;
  float* momentum_buffer = nullptr;  // null: no momentum
  int64_t n = 0;
  float grad_scale = 1, lr = 0, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
TRIREME_CPU_KERNEL(sgd, (const SgdArgs& a), (a))

}  // namespace trireme::cpu
