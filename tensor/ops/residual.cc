#include "tensor/ops/residual.h"

#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/dropout.h"
#include "tensor/cuda/norm.h"
#include "tensor/on_device.h"
#include "tensor/ops/norm_backward.h"
#include "tensor/ops/op_checks.h"

namespace trireme {
namespace {

void check_operands(const char* op, const Tensor& residual, const Tensor& x, const Tensor& bias) {
  check_rows(op, "x", x);
  check_alike(op, "residual", residual, "x", x);
  if (bias.defined()) check_vector(op, "bias", bias, x);
}

// Gradients of (residual, x, bias), inputs 0 to 2, from that of residual + dropout(x + bias).
void sum_backward(Grads& grads, const Tensor& dsum, const cpu::DropoutMask& mask) {
  const int64_t rows = dsum.dim(0), dim = dsum.dim(1);
  const bool wants_bias = grads.wants(2), masked = mask.active() && grads.wants(1);
  Tensor dx = masked ? empty_like(dsum) : dsum;
  if (masked || wants_bias) {
    Tensor dbias, partial;
    if (wants_bias) {
      dbias = empty({dim}, DType::kF32, dsum.device());
      partial = empty({cpu::column_partials(rows), dim}, DType::kF32, dsum.device());
    }
    on(dsum.device(), cpu::add_bias_dropout_backward, cuda::add_bias_dropout_backward)(
        masked ? dx.raw() : nullptr, static_cast<float*>(dbias.raw()), static_cast<float*>(partial.raw()),
        dsum.raw(), dsum.dtype(), rows, dim, mask);
    if (wants_bias) add_parameter_grad(grads, 2, dbias, dsum.dtype());
  }
  grads.add(0, dsum);
  grads.add(1, dx);
}

Normed residual_norm(const char* op, const Tensor& residual, const Tensor& x, const Tensor& bias,
                     const DropoutRows& dropout, const Tensor& weight, const Tensor& norm_bias, float eps,
                     bool centered) {
  check_operands(op, residual, x, bias);
  const cpu::DropoutMask mask = dropout_mask(op, dropout, x);
  Tape* tape = recording({residual, x, bias, weight, norm_bias});
  Normed y;
  SavedNorm saved;
  cpu::NormForward a = prepare_norm(op, x, weight, norm_bias, centered, eps, tape != nullptr, y.normed, saved);
  y.sum = empty_like(x);
  a.x = x.raw();
  a.residual = residual.raw();
  a.bias = bias.raw();
  a.mask = mask;
  a.sum = y.sum.raw();
  on(x.device(), cpu::norm_forward, cuda::norm_forward)(a);
  if (tape) {
    saved.input = y.sum;
    tape->record(op, {residual, x, bias, weight, norm_bias}, {&y.sum, &y.normed},
                 [saved, mask, keys = dropout.row_keys](Grads& grads) {
                   if (!grads.out(1).defined()) return sum_backward(grads, grads.out(0), mask);
                   const NormGrads g =
                       norm_backward(saved, grads.out(1), grads.out(0), mask, grads.wants(1), grads.wants(2));
                   grads.add(0, g.input);
                   grads.add(1, mask.active() && grads.wants(1) ? g.dropped : g.input);
                   const DType dtype = saved.weight.dtype();
                   if (g.bias.defined()) add_parameter_grad(grads, 2, g.bias, dtype);
                   add_parameter_grad(grads, 3, g.weight, dtype);
                   if (saved.centered) add_parameter_grad(grads, 4, g.norm_bias, dtype);
                 });
  }
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  check_rows("add", "a", a);
  check_alike("add", "a", a, "b", b);
  Tensor y = empty_like(a);
  on(a.device(), cpu::add_bias_dropout, cuda::add_bias_dropout)(
      y.raw(), a.raw(), b.raw(), nullptr, a.dtype(), a.dim(0), a.dim(1), {});
  if (Tape* tape = recording({a, b})) {
    tape->record("add", {a, b}, {&y}, [](Grads& grads) {
      grads.add(0, grads.out());
      grads.add(1, grads.out());
    }, {.backward_moves = false});
  }
  return y;
}

Tensor add_bias_dropout(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout) {
  check_operands("add_bias_dropout", residual, x, bias);
  const cpu::DropoutMask mask = dropout_mask("add_bias_dropout", dropout, x);
  Tensor y = empty_like(x);
  on(x.device(), cpu::add_bias_dropout, cuda::add_bias_dropout)(
      y.raw(), residual.raw(), x.raw(), bias.raw(), x.dtype(), x.dim(0), x.dim(1), mask);
  if (Tape* tape = recording({residual, x, bias})) {
    tape->record("add_bias_dropout", {residual, x, bias}, {&y}, [mask, keys = dropout.row_keys](Grads& grads) {
      sum_backward(grads, grads.out(), mask);
    }, {.backward_moves = mask.active()});
  }
  return y;
}

Normed residual_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout,
                           const Tensor& weight, const Tensor& norm_bias, float eps) {
  return residual_norm("residual_layer_norm", residual, x, bias, dropout, weight, norm_bias, eps, true);
}

Normed residual_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& bias, const DropoutRows& dropout,
                         const Tensor& weight, float eps) {
  return residual_norm("residual_rms_norm", residual, x, bias, dropout, weight, Tensor(), eps, false);
}

}  // namespace trireme
