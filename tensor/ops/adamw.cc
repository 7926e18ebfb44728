#include "tensor/ops/adamw.h"

#include <cmath>

#include "base/error.h"
#include "tensor/cpu/adamw.h"
#include "tensor/cuda/adamw.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

void check_copy(const char* op, const OptimizerSpan& span) {
  check(!span.copy || is_float(span.copy_dtype), op, ": a copy as ", span.copy_dtype, "; it must be f32, bf16 or f16");
}

}  // namespace

void adamw_step(const OptimizerSpan& span, float* m, float* v, const AdamwRule& rule) {
  check_copy("adamw_step", span);
  for (double beta : {rule.beta1, rule.beta2})
    check<ConfigError>(beta >= 0 && beta < 1, "adamw: beta ", beta, " must be in [0, 1)");
  check<ConfigError>(rule.eps > 0, "adamw: eps is ", rule.eps, "; it must be above 0");
  check<ConfigError>(rule.step >= 1, "adamw: step is ", rule.step, "; steps count from 1");
  const double step = static_cast<double>(rule.step);
  // 1 - beta^step without cancelling: expm1 of step * log(beta); beta = 0 gives 1.
  const double correction1 = -std::expm1(step * std::log(rule.beta1));
  const double correction2 = -std::expm1(step * std::log(rule.beta2));
  cpu::AdamwArgs a;
  a.param = span.param;
  a.copy = span.copy;
  a.copy_dtype = span.copy_dtype;
  a.grad = span.grad;
  a.m = m;
  a.v = v;
  a.n = span.count;
  a.grad_scale = static_cast<float>(rule.grad_scale);
  a.decay = static_cast<float>(1 - rule.lr * rule.weight_decay);
  a.beta1 = static_cast<float>(rule.beta1);
  a.beta2 = static_cast<float>(rule.beta2);
  a.one_minus_beta1 = static_cast<float>(1 - rule.beta1);
  a.one_minus_beta2 = static_cast<float>(1 - rule.beta2);
  a.step_size = static_cast<float>(rule.lr / correction1);
  a.inv_sqrt_bias2 = static_cast<float>(1 / std::sqrt(correction2));
  a.eps = static_cast<float>(rule.eps);
  on(span.device, cpu::adamw, cuda::adamw)(a);
}

void sgd_step(const OptimizerSpan& span, float* buffer, const SgdRule& rule) {
  check_copy("sgd_step", span);
  check<ConfigError>(rule.momentum >= 0 && rule.momentum < 1, "sgd: momentum ", rule.momentum, " must be in [0, 1)");
  check<ConfigError>(!rule.nesterov || rule.momentum > 0, "sgd: nesterov needs a momentum above 0");
  check<ConfigError>(rule.momentum == 0 || buffer || span.count == 0, "sgd: momentum ", rule.momentum,
                     " needs a momentum buffer");
  cpu::SgdArgs a;
  a.param = span.param;
  a.copy = span.copy;
  a.copy_dtype = span.copy_dtype;
  a.grad = span.grad;
  a.momentum_buffer = rule.momentum > 0 ? buffer : nullptr;
  a.n = span.count;
  a.grad_scale = static_cast<float>(rule.grad_scale);
  a.lr = static_cast<float>(rule.lr);
  a.momentum = static_cast<float>(rule.momentum);
  a.weight_decay = static_cast<float>(rule.weight_decay);
  a.nesterov = rule.nesterov;
  on(span.device, cpu::sgd, cuda::sgd)(a);
}

}  // namespace trireme
