#include "tensor/ops/reduce.h"

#include <vector>

#include "tensor/cpu/reduce.h"
#include "tensor/cuda/reduce.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"

namespace trireme {
namespace {

void check_floats(const char* op, const Tensor& x) {
  check(x.defined() && is_float(x.dtype()), op, ": x is ", x, "; it must be f32, bf16 or f16");
}

int64_t blocks_of(const Tensor& x) { return (x.numel() + cpu::kSumBlock - 1) / cpu::kSumBlock; }

}  // namespace

double sum_of_squares(const Tensor& x) { return sum_of_squares(std::vector<Tensor>{x}); }

double sum_of_squares(const std::vector<Tensor>& tensors) {
  int64_t blocks = 0;
  for (const Tensor& x : tensors) {
    check_floats("sum_of_squares", x);
    check_one_device("sum_of_squares", "one tensor", tensors[0], "another", x);
    blocks += blocks_of(x);
  }
  if (blocks == 0) return 0;
  if (!on_host(tensors[0])) {
    const Device device = tensors[0].device();
    require_selected(device);
    const Tensor sums = empty({blocks + 1}, DType::kI64, device);  // doubles: the total, then those of the blocks
    auto* total = static_cast<double*>(sums.raw());
    double* partial = total + 1;
    for (const Tensor& x : tensors) {
      if (x.numel()) cuda::sum_of_squares(partial, x.raw(), x.dtype(), x.numel());
      partial += blocks_of(x);
    }
    cuda::sum_doubles(total, total + 1, blocks);
    return fetched<double>(total, device);
  }
  double sum = 0;
  std::vector<double> partial;
  for (const Tensor& x : tensors) {
    partial.resize(static_cast<size_t>(blocks_of(x)));
    cpu::sum_of_squares(partial.data(), x.raw(), x.dtype(), x.numel());
    double own = 0;
    for (double part : partial) own += part;
    sum += own;
  }
  return sum;
}

bool all_finite(const Tensor& x) {
  check_floats("all_finite", x);
  if (!on_host(x)) {
    require_selected(x.device());
    const Tensor answer = empty({1}, DType::kU8, x.device());
    cuda::all_finite(static_cast<bool*>(answer.raw()), x.raw(), x.dtype(), x.numel());
    return fetched<uint8_t>(answer.raw(), x.device()) != 0;
  }
  bool finite = true;
  cpu::all_finite(&finite, x.raw(), x.dtype(), x.numel());
  return finite;
}

void scale_in_place(const Tensor& x, float factor) {
  check_floats("scale_in_place", x);
  on(x.device(), cpu::scale_in_place, cuda::scale_in_place)(x.raw(), factor, x.dtype(), x.numel());
}

void axpy(float a, const Tensor& x, const Tensor& y) {
  check_floats("axpy", x);
  check_alike("axpy", "x", x, "y", y);
  on(x.device(), cpu::axpy, cuda::axpy)(y.raw(), a, x.raw(), x.dtype(), x.numel());
}

void fill(const Tensor& x, float value) {
  check_floats("fill", x);
  on(x.device(), cpu::fill, cuda::fill)(x.raw(), value, x.dtype(), x.numel());
}

Tensor copy_columns(const Tensor& src, int64_t begin, int64_t end) {
  check(src.defined() && src.rank() == 2 && begin >= 0 && begin <= end && end <= src.dim(1), "copy_columns: columns [",
        begin, ",", end, ") of ", src);
  const int64_t size = static_cast<int64_t>(size_of(src.dtype()));
  Tensor y = empty({src.dim(0), end - begin}, src.dtype(), src.device());
  on(src.device(), cpu::copy_rows, cuda::copy_rows)(
      y.raw(), static_cast<const char*>(src.raw()) + begin * size, src.dim(0), (end - begin) * size,
      src.dim(1) * size);
  return y;
}

}  // namespace trireme
