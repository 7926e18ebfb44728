#include "parallel/gelu_mlp.h"

#include "parallel/tensor_collectives.h"
#include "tensor/on_device.h"
#include "tensor/ops/linear.h"

namespace trireme {

Tensor gelu_mlp(const Linear& in, const Linear& out, const Tensor& x, Gelu kind) {
  TRIREME_ASSERT(in.split_ == Split::kColumns && in.bias_ && out.split_ == Split::kRows);
  if (on_host(x) || kind != Gelu::kTanh || in.fp8()) return out.without_bias(bias_gelu(in.without_bias(x), in.bias(), kind));
  Communicator& tp = in.tp_;
  const Tensor &w1 = in.weight(), &b1 = in.bias(), &w2 = out.weight();
  const bool gather = in.split_rows_, reduce = !gather && tp.size() > 1;
  Tape* tape = x.tape();
  const Tensor input = x.detach();
  const LinearGelu half = linear_gelu_forward(gather ? gather_rows(input, tp) : input, w1, b1, tape != nullptr);
  Tensor y = linear_forward(half.y, w2, {});
  if (tape) {
    OpWork work = linear_work(y.dim(0), w1);
    const OpWork second = linear_work(y.dim(0), w2);
    work.forward_flops += second.forward_flops;
    work.backward_flops += second.backward_flops;
    tape->record("gelu_mlp", {x, w1, b1, w2}, {&y}, [&tp, input, half, w1, w2, gather, reduce](Grads& grads) {
      const Tensor dy = grads.out();
      // Collectives run beside the products, as a linear layer's do.
      Tensor full = input;
      Work gathering;
      if (gather) {
        full = empty(Shape{input.dim(0) * tp.size(), input.dim(1)}, input.dtype(), input.device());
        gathering = tp.all_gather_async(input, full);
      }
      const Tensor d_before = linear_gelu_backward_input(dy, w2, half.before);
      gathering.wait();
      Tensor dx, partial;
      Work reducing;
      if (grads.wants(0)) {
        partial = dx = linear_backward_input(d_before, w1);
        if (gather) {
          dx = empty_like(input);
          reducing = tp.reduce_scatter_async(partial, dx);
        } else if (reduce) {
          reducing = tp.all_reduce_async(dx);
        }
      }
      grads.weight_step([dy, full, d_before, h = half.y, g1 = grads.slot(1), g2 = grads.slot(2), g3 = grads.slot(3)] {
        if (g1) linear_backward_weight(d_before, full, *g1);
        if (g2) linear_backward_bias(d_before, *g2);
        if (g3) linear_backward_weight(dy, h, *g3);
      });
      reducing.wait();
      if (dx.defined()) grads.add(0, dx);
    }, work);
  }
  return out.split_rows_ ? reduce_scatter_rows(y, tp) : sum_over_tensor_ranks(y, tp);
}

}  // namespace trireme
