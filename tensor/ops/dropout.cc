#include "tensor/ops/dropout.h"

#include "tensor/cuda/dropout.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"

namespace trireme {

cpu::DropoutMask dropout_mask(const char* op, const DropoutRows& rows, const Tensor& x) {
  const Dropout& rule = rows.rule;
  check<ConfigError>(rule.p >= 0 && rule.p < 1, op, ": dropout probability ", rule.p, " must be in [0, 1)");
  if (!rule.active()) return {};
  check(rows.row_keys.defined() && rows.row_keys.dtype() == DType::kI64 && rows.row_keys.shape() == Shape{x.dim(0)},
        op, ": row_keys is ", rows.row_keys, ", x is ", x, "; row_keys must be i64[", x.dim(0), "]");
  check_one_device(op, "row_keys", rows.row_keys, "x", x);
  // Philox counts blocks of four columns in 32 bits.
  check(rows.first_column >= 0 && rows.first_column <= (int64_t{1} << 33) && x.dim(1) <= (int64_t{1} << 33), op,
        ": columns from ", rows.first_column, " on, x is ", x, "; first_column must lie in [0, 2^33]");
  return {rows.row_keys.data<int64_t>(), rule.seed, rule.stream, rule.threshold(), 1.0f / (1.0f - rule.p),
          rows.first_column};
}

Tensor dropout(const Tensor& x, const DropoutRows& rows) {
  check_rows("dropout", "x", x);
  const cpu::DropoutMask mask = dropout_mask("dropout", rows, x);
  if (!mask.active()) return x;
  Tensor y = empty_like(x);
  on(x.device(), cpu::dropout, cuda::dropout)(y.raw(), x.raw(), x.dtype(), x.dim(0), x.dim(1), mask);
  if (Tape* tape = recording({x})) {
    tape->record("dropout", {x}, {&y}, [mask, keys = rows.row_keys](Grads& grads) {
      const Tensor& dy = grads.out();
      Tensor dx = empty_like(dy);
      on(dy.device(), cpu::dropout, cuda::dropout)(
          dx.raw(), dy.raw(), dy.dtype(), dy.dim(0), dy.dim(1), mask);
      grads.add(0, dx);
    });
  }
  return y;
}

}  // namespace trireme
