#include "tensor/ops/op_checks.h"

#include "tensor/on_device.h"

namespace trireme {

void check_rows(const char* op, const char* name, const Tensor& x) {
  check(x.defined() && x.rank() == 2 && is_float(x.dtype()) && x.dim(1) >= 1, op, ": ", name, " is ", x,
        "; it must be [rows, columns] of f32, bf16 or f16 with at least one column");
}

void check_vector(const char* op, const char* name, const Tensor& vector, const Tensor& x) {
  check(vector.defined() && vector.shape() == Shape{x.dim(1)} && vector.dtype() == x.dtype(), op, ": ", name, " is ",
        vector, ", x is ", x, "; ", name, " must be ", x.dtype(), "[", x.dim(1), "]");
  check_one_device(op, name, vector, "x", x);
}

void check_alike(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b) {
  check(a.defined() && b.defined() && a.shape() == b.shape() && a.dtype() == b.dtype(), op, ": ", name_a, " is ", a,
        ", ", name_b, " is ", b, "; they must have one shape and dtype");
  check_one_device(op, name_a, a, name_b, b);
}

void add_parameter_grad(Grads& grads, int i, const Tensor& grad, DType dtype) {
  if (!grads.wants(i)) return;
  grads.add(i, grads.slot(i) || dtype == DType::kF32 ? grad : cast(grad, dtype));
}

}  // namespace trireme
