#include "tensor/ops/take_rows.h"

#include "tensor/cpu/embedding.h"
#include "tensor/cuda/embedding.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"
#include "tensor/ops/reduce.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

void check_numbers(const char* op, const Tensor& x, const std::vector<int32_t>& rows) {
  for (const int32_t row : rows) check(row >= 0 && row < x.dim(0), op, ": row ", row, " of ", x);
}

}  // namespace

Tensor take_rows(const Tensor& x, const std::vector<int32_t>& rows) {
  check_rows("take_rows", "x", x);
  check_numbers("take_rows", x, rows);
  const int64_t count = static_cast<int64_t>(rows.size()), total = x.dim(0), dim = x.dim(1);
  const Tensor numbers = to_device(tensor_of<int32_t>(rows, {count}), x.device());
  Tensor y = empty({count, dim}, x.dtype(), x.device());
  on(x.device(), cpu::embedding, cuda::embedding)(
      y.raw(), numbers.data<int32_t>(), x.raw(), x.dtype(), count, 0, total, dim);
  if (Tape* tape = recording({x})) {
    tape->record("take_rows", {x}, {&y}, [numbers, total](Grads& grads) {
      const Tensor& dy = grads.out();
      const Tensor dx = empty({total, dy.dim(1)}, DType::kF32, dy.device());
      fill(dx, 0);
      on(dy.device(), cpu::embedding_backward, cuda::embedding_backward)(
          dx.data<float>(), numbers.data<int32_t>(), dy.raw(), dy.dtype(), dy.dim(0), 0, total, dy.dim(1));
      grads.add(0, dy.dtype() == DType::kF32 ? dx : cast(dx, dy.dtype()));
    });
  }
  return y;
}

Tensor copy_rows(const Tensor& x, const std::vector<int32_t>& rows) {
  check(x.defined() && (x.rank() == 1 || x.rank() == 2), "copy_rows: x is ", x, "; it must have one or two dimensions");
  check_numbers("copy_rows", x, rows);
  const Tensor from = x.detach();
  const int64_t count = static_cast<int64_t>(rows.size());
  Tensor y = empty(x.rank() == 1 ? Shape{count} : Shape{count, x.dim(1)}, x.dtype(), x.device());
  for (size_t i = 0; i < rows.size(); ++i)
    copy(from.rows(rows[i], rows[i] + 1), y.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1));
  return y;
}

}  // namespace trireme
