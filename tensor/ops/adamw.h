// Optimizer steps over flat f32 arrays, in one pass over memory. They take pointers, since they work on the shards and
// buckets of flat buffers and never on a tape.
#pragma once

#include <cstdint>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace trireme {

// What a step reads and writes: `count` elements each. `copy`, if not null, receives the new parameters rounded to
// copy_dtype (the weights that forward reads) in the same pass.
struct OptimizerSpan {
  float* param = nullptr;  // f32 master
  void* copy = nullptr;
  DType copy_dtype = DType::kBF16;
  const float* grad = nullptr;
  int64_t count = 0;
  Device device = Device::cpu();  // where all of them lie
};

// AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101; Kingma & Ba 2015, arXiv:1412.6980.
//   g = grad * grad_scale                      param -= lr * weight_decay * param
//   m = beta1 m + (1 - beta1) g                param -= lr * (m / (1 - beta1^step))
//   v = beta2 v + (1 - beta2) g^2                       / (sqrt(v / (1 - beta2^step)) + eps)
struct AdamwRule {
  double lr = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  // decoupled
  double grad_scale = 1;    // clipping, and undoing a loss scale
  int64_t step = 1;         // number of this step, from 1
};
// m and v: f32, on span.device, zero before the first step. 28 bytes moved an element, and those of the copy.
// Throws ConfigError unless 0 <= beta < 1, eps > 0 and step >= 1, ShapeError if copy_dtype is no float.
void adamw_step(const OptimizerSpan& span, float* m, float* v, const AdamwRule& rule);

// SGD with momentum (Sutskever et al. 2013, PMLR 28): g = grad * grad_scale + weight_decay * param;
// buffer = momentum * buffer + g;  param -= lr * (nesterov ? g + momentum * buffer : buffer).
struct SgdRule {
  double lr = 0;
  double momentum = 0;      // 0: param -= lr * g, and no buffer is touched
  double weight_decay = 0;  // added to the gradient
  double grad_scale = 1;
  bool nesterov = false;
};
// buffer: f32, zero before the first step; may be null without momentum.
// Throws ConfigError unless 0 <= momentum < 1, or if nesterov is set without momentum or a buffer is missing.
void sgd_step(const OptimizerSpan& span, float* buffer, const SgdRule& rule);

}  // namespace trireme
