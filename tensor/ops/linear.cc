#include "tensor/ops/linear.h"

#include "tensor/cpu/bias.h"
#include "tensor/cpu/activation.h"
#include "tensor/cuda/activation.h"
#include "tensor/cuda/bias.h"
#include "tensor/cuda/gemm.h"
#include "tensor/gemm_table.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

void check_rank_2(const char* op, const char* name, const Tensor& t) {
  check(t.rank() == 2 && is_float(t.dtype()), op, ": ", name, " is ", t, "; want a floating [rows, columns]");
}

void check_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_rank_2("linear", "x", x);
  check_rank_2("linear", "weight", weight);
  const int64_t in = x.dim(1), out = weight.dim(0);
  check(weight.dim(1) == in && weight.dtype() == x.dtype(), "linear: weight is ", weight, ", x is ", x,
        "; weight must be ", x.dtype(), "[out,", in, "]");
  check(!bias.defined() || (bias.shape() == Shape{out} && bias.dtype() == x.dtype()), "linear: bias is ", bias,
        ", weight is ", weight, "; bias must be ", x.dtype(), "[", out, "]");
  check_one_device("linear", "weight", weight, "x", x);
  check_one_device("linear", "bias", bias, "x", x);
}

void check_linear_backward_input(const Tensor& dy, const Tensor& weight) {
  check_rank_2("linear_backward_input", "dy", dy);
  check_rank_2("linear_backward_input", "weight", weight);
  check(weight.dim(0) == dy.dim(1) && weight.dtype() == dy.dtype(), "linear_backward_input: weight is ", weight, ", dy is ",
        dy, "; weight must be ", dy.dtype(), "[", dy.dim(1), ",in]");
  check_one_device("linear_backward_input", "weight", weight, "dy", dy);
}

// Whether rows and the first element lie at multiples of 16 bytes, as a gelu beside a product needs.
bool whole_words(const Tensor& t) {
  return t.dim(1) * static_cast<int64_t>(size_of(t.dtype())) % 16 == 0 && reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0;
}

void check_slot(const char* op, const GradSlot& slot, const Shape& want, const Tensor& dy) {
  check(slot.grad.shape() == want && slot.grad.dtype() == DType::kF32, op, ": the gradient is ", slot.grad,
        "; it must be f32", want);
  check_one_device(op, "the gradient", slot.grad, "dy", dy);
}

// Whether cuBLASLt may do what stands beside a product.
bool fuses(const Tensor& x) {
  if (on_host(x)) return false;
  require_selected(x.device());
  return true;
}

// The gradient of a weight or bias that is a variable, not a parameter: by way of a slot of its own.
template <class Fn>
void give_variable(Grads& grads, int i, const Tensor& like, Fn&& accumulate) {
  GradSlot slot{empty(like.shape(), DType::kF32, like.device())};
  accumulate(slot);
  grads.add(i, like.dtype() == DType::kF32 ? slot.grad : cast(slot.grad, like.dtype()));
}

}  // namespace

Tensor linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_linear(x, weight, bias);
  const int64_t tokens = x.dim(0), in = x.dim(1), out = weight.dim(0);
  Tensor y = empty({tokens, out}, x.dtype(), x.device());
  const GemmShape shape{false, true, tokens, out, in, x.dtype(), x.dtype()};
  if (bias.defined() && in > 0 && fuses(x) &&
      cuda::gemm_bias(shape, x.raw(), in, weight.raw(), in, bias.raw(), y.raw(), out, cuda::products_in_force(x.dtype())))
    return y;
  gemm(x.device(), shape, 1, x.raw(), in, weight.raw(), in, 0, y.raw(), out);
  if (bias.defined())
    on(y.device(), cpu::add_bias, cuda::add_bias)(y.raw(), bias.raw(), y.dtype(), tokens, out);
  return y;
}

LinearGelu linear_gelu_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, bool keep) {
  check_linear(x, weight, bias);
  const int64_t tokens = x.dim(0), in = x.dim(1), out = weight.dim(0);
  LinearGelu result;
  result.y = empty({tokens, out}, x.dtype(), x.device());
  if (keep) result.before = empty_like(result.y);
  if (in > 0 && fuses(x) && whole_words(result.y) &&
      cuda::gemm_bias_gelu({false, true, tokens, out, in, x.dtype(), x.dtype()}, x.raw(), in, weight.raw(), in, bias.raw(),
                           result.before.raw(), keep ? out : 0, result.y.raw(), out,
                           cuda::products_in_force(x.dtype())))
    return result;
  const Tensor before = linear_forward(x, weight, bias);
  on(x.device(), cpu::bias_gelu, cuda::bias_gelu)(result.y.raw(), before.raw(), nullptr, x.dtype(), tokens, out, false);
  if (keep) result.before = before;
  return result;
}

Tensor linear_gelu_backward_input(const Tensor& dy, const Tensor& weight, const Tensor& before) {
  check_linear_backward_input(dy, weight);
  const int64_t tokens = dy.dim(0), out = dy.dim(1), in = weight.dim(1);
  check(before.shape() == Shape{tokens, in} && before.dtype() == dy.dtype(), "linear_gelu_backward_input: before is ", before,
        "; it must be ", dy.dtype(), Shape{tokens, in});
  check_one_device("linear_gelu_backward_input", "before", before, "dy", dy);
  Tensor dx = empty_like(before);
  if (out > 0 && fuses(dy) && whole_words(dx) &&
      cuda::gemm_gelu_backward({false, false, tokens, in, out, dy.dtype(), dy.dtype()}, dy.raw(), out, weight.raw(), in,
                               before.raw(), in, nullptr, dx.raw(), in, cuda::products_in_force(dy.dtype())))
    return dx;
  const Tensor d_gelu = linear_backward_input(dy, weight);
  on(dy.device(), cpu::bias_gelu_backward, cuda::bias_gelu_backward)(
      dx.raw(), nullptr, nullptr, d_gelu.raw(), before.raw(), nullptr, dy.dtype(), tokens, in, false);
  return dx;
}

Tensor linear_backward_input(const Tensor& dy, const Tensor& weight) {
  check_linear_backward_input(dy, weight);
  const int64_t tokens = dy.dim(0), out = dy.dim(1), in = weight.dim(1);
  Tensor dx = empty({tokens, in}, dy.dtype(), dy.device());
  gemm(dy.device(), {false, false, tokens, in, out, dy.dtype(), dy.dtype()}, 1, dy.raw(), out, weight.raw(), in, 0,
       dx.raw(), in);
  return dx;
}

void linear_backward_weight(const Tensor& dy, const Tensor& x, GradSlot& weight_grad) {
  check_rank_2("linear_backward_weight", "dy", dy);
  check_rank_2("linear_backward_weight", "x", x);
  const int64_t tokens = dy.dim(0), out = dy.dim(1), in = x.dim(1);
  check(x.dim(0) == tokens && x.dtype() == dy.dtype(), "linear_backward_weight: x is ", x, ", dy is ", dy,
        "; x must be ", dy.dtype(), "[", tokens, ",in]");
  check_one_device("linear_backward_weight", "x", x, "dy", dy);
  check_slot("linear_backward_weight", weight_grad, {out, in}, dy);
  gemm(dy.device(), {true, false, out, in, tokens, dy.dtype(), DType::kF32}, 1, dy.raw(), out, x.raw(), in,
       weight_grad.empty ? 0.0f : 1.0f, weight_grad.grad.raw(), in);
  weight_grad.empty = false;
}

void linear_backward_bias(const Tensor& dy, GradSlot& bias_grad) {
  check_rank_2("linear_backward_bias", "dy", dy);
  check_slot("linear_backward_bias", bias_grad, {dy.dim(1)}, dy);
  on(dy.device(), cpu::column_sum, cuda::column_sum)(
      dy.raw(), dy.dtype(), dy.dim(0), dy.dim(1), !bias_grad.empty, bias_grad.grad.data<float>());
  bias_grad.empty = false;
}

OpWork linear_work(int64_t tokens, const Tensor& weight) {
  const double product = 2.0 * static_cast<double>(tokens) * static_cast<double>(weight.numel());
  return {product, 2 * product};
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor y = linear_forward(x, weight, bias);
  Tape* tape = recording({x, weight, bias});
  if (!tape) return y;
  const Tensor saved_x = weight.slot() || weight.tape() ? x.detach() : Tensor();
  tape->record("linear", {x, weight, bias}, {&y},
               [saved_x, weight = weight.detach(), bias = bias.detach()](Grads& grads) {
                 const Tensor dy = grads.out();
                 if (grads.wants(0)) grads.add(0, linear_backward_input(dy, weight));
                 GradSlot *weight_slot = grads.slot(1), *bias_slot = grads.slot(2);
                 if (weight_slot || bias_slot)
                   grads.weight_step([dy, saved_x, weight_slot, bias_slot] {
                     if (weight_slot) linear_backward_weight(dy, saved_x, *weight_slot);
                     if (bias_slot) linear_backward_bias(dy, *bias_slot);
                   });
                 if (!weight_slot && grads.wants(1))
                   give_variable(grads, 1, weight, [&](GradSlot& s) { linear_backward_weight(dy, saved_x, s); });
                 if (!bias_slot && grads.wants(2))
                   give_variable(grads, 2, bias, [&](GradSlot& s) { linear_backward_bias(dy, s); });
               },
               linear_work(x.dim(0), weight));
  return y;
}

}  // namespace trireme
