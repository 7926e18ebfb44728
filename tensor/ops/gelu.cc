#include "tensor/ops/gelu.h"

#include "tensor/cpu/activation.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/activation.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"

namespace trireme {

Tensor bias_gelu(const Tensor& x, const Tensor& bias, Gelu kind) {
  check_rows("bias_gelu", "x", x);
  if (bias.defined()) check_vector("bias_gelu", "bias", bias, x);
  const bool exact = kind == Gelu::kErf;
  Tensor y = empty_like(x);
  on(x.device(), cpu::bias_gelu, cuda::bias_gelu)(
      y.raw(), x.raw(), bias.raw(), x.dtype(), x.dim(0), x.dim(1), exact);
  if (Tape* tape = recording({x, bias})) {
    tape->record("bias_gelu", {x, bias}, {&y}, [x = x.detach(), bias = bias.detach(), exact](Grads& grads) {
      const int64_t rows = x.dim(0), dim = x.dim(1);
      Tensor dx = empty_like(x), dbias, partial;
      if (grads.wants(1)) {
        dbias = empty({dim}, DType::kF32, x.device());
        partial = empty({cpu::column_partials(rows), dim}, DType::kF32, x.device());
      }
      on(x.device(), cpu::bias_gelu_backward, cuda::bias_gelu_backward)(
          dx.raw(), static_cast<float*>(dbias.raw()), static_cast<float*>(partial.raw()), grads.out().raw(),
          x.raw(), bias.raw(), x.dtype(), rows, dim, exact);
      grads.add(0, dx);
      if (dbias.defined()) add_parameter_grad(grads, 1, dbias, x.dtype());
    });
  }
  return y;
}

}  // namespace trireme
