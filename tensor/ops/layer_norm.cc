#include "tensor/ops/layer_norm.h"

#include "tensor/cuda/norm.h"
#include "tensor/on_device.h"
#include "tensor/ops/norm_backward.h"
#include "tensor/ops/op_checks.h"

namespace trireme {

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  Tape* tape = recording({x, weight, bias});
  Tensor y;
  SavedNorm saved;
  cpu::NormForward a = prepare_norm("layer_norm", x, weight, bias, /*centered=*/true, eps, tape != nullptr, y, saved);
  a.x = x.raw();
  on(x.device(), cpu::norm_forward, cuda::norm_forward)(a);
  if (tape) {
    saved.input = x.detach();
    tape->record("layer_norm", {x, weight, bias}, {&y}, [saved](Grads& grads) {
      const NormGrads g = norm_backward(saved, grads.out(), Tensor(), {}, false, false);
      grads.add(0, g.input);
      add_parameter_grad(grads, 1, g.weight, saved.weight.dtype());
      add_parameter_grad(grads, 2, g.norm_bias, saved.weight.dtype());
    });
  }
  return y;
}

}  // namespace trireme
