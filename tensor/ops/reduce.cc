#include "tensor/ops/reduce.h"

#include <vector>

#include "tensor/cpu/reduce.h"
#include "tensor/ops/op_checks.h"

namespace trireme {
namespace {

void check_floats(const char* op, const Tensor& x) {
  check(x.defined() && is_float(x.dtype()), op, ": x is ", x, "; it must be f32, bf16 or f16");
}

}  // namespace

double sum_of_squares(const Tensor& x) {
  check_floats("sum_of_squares", x);
  std::vector<double> partial((x.numel() + cpu::kSumBlock - 1) / cpu::kSumBlock);
  cpu::sum_of_squares(partial.data(), x.raw(), x.dtype(), x.numel());
  double sum = 0;
  for (double part : partial) sum += part;
  return sum;
}

bool all_finite(const Tensor& x) {
  check_floats("all_finite", x);
  bool finite = true;
  cpu::all_finite(&finite, x.raw(), x.dtype(), x.numel());
  return finite;
}

void scale_in_place(const Tensor& x, float factor) {
  check_floats("scale_in_place", x);
  cpu::scale_in_place(x.raw(), factor, x.dtype(), x.numel());
}

void axpy(float a, const Tensor& x, const Tensor& y) {
  check_floats("axpy", x);
  check_alike("axpy", "x", x, "y", y);
  cpu::axpy(y.raw(), a, x.raw(), x.dtype(), x.numel());
}

void fill(const Tensor& x, float value) {
  check_floats("fill", x);
  cpu::fill(x.raw(), value, x.dtype(), x.numel());
}

Tensor copy_columns(const Tensor& src, int64_t begin, int64_t end) {
  check(src.defined() && src.rank() == 2 && begin >= 0 && begin <= end && end <= src.dim(1), "copy_columns: columns [",
        begin, ",", end, ") of ", src);
  const int64_t size = static_cast<int64_t>(size_of(src.dtype()));
  Tensor y = empty({src.dim(0), end - begin}, src.dtype(), src.device());
  cpu::copy_rows(y.raw(), static_cast<const char*>(src.raw()) + begin * size, src.dim(0), (end - begin) * size,
                 src.dim(1) * size);
  return y;
}

}  // namespace trireme
