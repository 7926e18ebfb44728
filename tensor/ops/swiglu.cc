#include "tensor/ops/swiglu.h"

#include "tensor/cpu/activation.h"
#include "tensor/cuda/activation.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"

namespace trireme {

Tensor swiglu(const Tensor& gate_up) {
  check_rows("swiglu", "gate_up", gate_up);
  check(gate_up.dim(1) % 2 == 0, "swiglu: gate_up is ", gate_up, "; its columns must be gate and up, of one width");
  const int64_t rows = gate_up.dim(0), dim = gate_up.dim(1) / 2;
  Tensor y = empty({rows, dim}, gate_up.dtype(), gate_up.device());
  on(gate_up.device(), cpu::swiglu, cuda::swiglu)(y.raw(), gate_up.raw(), gate_up.dtype(), rows, dim);
  if (Tape* tape = recording({gate_up})) {
    tape->record("swiglu", {gate_up}, {&y}, [gate_up = gate_up.detach()](Grads& grads) {
      Tensor dgate_up = empty_like(gate_up);
      on(gate_up.device(), cpu::swiglu_backward, cuda::swiglu_backward)(
          dgate_up.raw(), grads.out().raw(), gate_up.raw(), gate_up.dtype(),
          gate_up.dim(0), gate_up.dim(1) / 2);
      grads.add(0, dgate_up);
    });
  }
  return y;
}

}  // namespace trireme
