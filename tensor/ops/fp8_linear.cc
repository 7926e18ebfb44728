#include "tensor/ops/fp8_linear.h"

#include "tensor/cpu/bias.h"
#include "tensor/cpu/fp8.h"
#include "tensor/cpu/reduce.h"
#include "tensor/cuda/bias.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/fp8.h"
#include "tensor/cuda/gemm.h"
#include "tensor/gemm.h"
#include "tensor/on_device.h"
#include "tensor/ops/reduce.h"

namespace trireme {
namespace {

// [rows, ld] of 8-bit floats, ld a multiple of 16 with zeros past the columns, and the two scales.
struct Narrow {
  Tensor data, scales;
  Fp8 type;
  int64_t rows() const { return data.dim(0); }
  int64_t ld() const { return data.dim(1); }
};

int64_t padded(int64_t n) { return (n + kFp8Multiple - 1) / kFp8Multiple * kFp8Multiple; }

Narrow narrow(const Tensor& x, Fp8 type, bool transposed) {
  const int64_t rows = x.dim(0), columns = x.dim(1), ld = padded(transposed ? rows : columns);
  Narrow n{empty({transposed ? columns : rows, ld}, DType::kU8, x.device()), empty({2}, DType::kF32, x.device()), type};
  on(x.device(), cpu::fp8_scales, cuda::fp8_scales)(n.scales.data<float>(), x.raw(), x.dtype(), x.numel(), type);
  const auto quantize = transposed ? on(x.device(), cpu::fp8_quantize_transposed, cuda::fp8_quantize_transposed)
                                   : on(x.device(), cpu::fp8_quantize, cuda::fp8_quantize);
  quantize(n.data.data<uint8_t>(), ld, x.raw(), x.dtype(), rows, columns, type, n.scales.data<float>());
  return n;
}

Tensor widened(const Narrow& n) {
  Tensor wide = empty(n.data.shape(), DType::kF32);
  cpu::fp8_widen(wide.data<float>(), n.data.data<uint8_t>(), wide.numel(), n.type, n.scales.data<float>());
  return wide;
}

// C [a.rows, b.rows] = A B^T + beta C, of rows with rows; c is f32 where beta is not 0.
void product(const Narrow& a, const Narrow& b, float beta, const Tensor& c) {
  const int64_t m = a.rows(), n = b.rows(), k = a.ld();
  TRIREME_ASSERT(b.ld() == k && c.shape() == (Shape{m, n}));
  if (!on_host(c)) {
    require_selected(c.device());
    if (m > 0)
      cuda::gemm_fp8(m, n, k, {a.data.raw(), k, a.type, a.scales.data<float>() + 1},
                     {b.data.raw(), k, b.type, b.scales.data<float>() + 1}, beta, c.raw(), n, c.dtype());
    return;
  }
  const Tensor wide_a = widened(a), wide_b = widened(b), out = c.dtype() == DType::kF32 ? c : empty(c.shape(), DType::kF32);
  gemm(c.device(), {false, true, m, n, k, DType::kF32, DType::kF32}, 1, wide_a.raw(), k, wide_b.raw(), k, beta, out.raw(), n);
  if (c.dtype() != DType::kF32) cpu::cast(c.raw(), c.dtype(), out.raw(), DType::kF32, c.numel());
}

void check_operands(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b, int64_t in,
                    int64_t out) {
  for (auto [name, t] : {std::pair(name_a, &a), {name_b, &b}})
    check(t->rank() == 2 && is_float(t->dtype()), op, ": ", name, " is ", *t, "; want a floating [rows, columns]");
  check(a.dtype() == b.dtype(), op, ": ", name_a, " is ", a, ", ", name_b, " is ", b, "; they must have one dtype");
  check(in % kFp8Multiple == 0 && out % kFp8Multiple == 0, op, ": ", in, " inputs and ", out,
        " outputs; 8-bit products want multiples of ", kFp8Multiple);
  check_one_device(op, name_a, a, name_b, b);
}

}  // namespace

Tensor fp8_linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_operands("fp8_linear", "x", x, "weight", weight, weight.dim(1), weight.dim(0));
  const int64_t tokens = x.dim(0), in = x.dim(1), out = weight.dim(0);
  check(weight.dim(1) == in, "fp8_linear: weight is ", weight, ", x is ", x, "; weight must be ", x.dtype(), "[out,", in, "]");
  check(!bias.defined() || (bias.shape() == Shape{out} && bias.dtype() == x.dtype()), "fp8_linear: bias is ", bias,
        ", weight is ", weight, "; bias must be ", x.dtype(), "[", out, "]");
  check_one_device("fp8_linear", "bias", bias, "x", x);
  Tensor y = empty({tokens, out}, x.dtype(), x.device());
  product(narrow(x, Fp8::kE4M3, false), narrow(weight, Fp8::kE4M3, false), 0, y);
  if (bias.defined()) on(y.device(), cpu::add_bias, cuda::add_bias)(y.raw(), bias.raw(), y.dtype(), tokens, out);
  return y;
}

Tensor fp8_linear_backward_input(const Tensor& dy, const Tensor& weight) {
  check_operands("fp8_linear_backward_input", "dy", dy, "weight", weight, weight.dim(1), weight.dim(0));
  check(weight.dim(0) == dy.dim(1), "fp8_linear_backward_input: weight is ", weight, ", dy is ", dy, "; weight must be ",
        dy.dtype(), "[", dy.dim(1), ",in]");
  Tensor dx = empty({dy.dim(0), weight.dim(1)}, dy.dtype(), dy.device());
  product(narrow(dy, Fp8::kE5M2, false), narrow(weight, Fp8::kE4M3, true), 0, dx);
  return dx;
}

void fp8_linear_backward_weight(const Tensor& dy, const Tensor& x, GradSlot& weight_grad) {
  check_operands("fp8_linear_backward_weight", "dy", dy, "x", x, x.dim(1), dy.dim(1));
  check(x.dim(0) == dy.dim(0), "fp8_linear_backward_weight: x is ", x, ", dy is ", dy, "; x must be ", dy.dtype(), "[",
        dy.dim(0), ",in]");
  check(weight_grad.grad.shape() == (Shape{dy.dim(1), x.dim(1)}) && weight_grad.grad.dtype() == DType::kF32,
        "fp8_linear_backward_weight: the gradient is ", weight_grad.grad, "; it must be f32[", dy.dim(1), ",", x.dim(1), "]");
  check_one_device("fp8_linear_backward_weight", "the gradient", weight_grad.grad, "dy", dy);
  if (dy.dim(0) == 0) {
    if (weight_grad.empty) fill(weight_grad.grad, 0);
  } else {
    product(narrow(dy, Fp8::kE5M2, true), narrow(x, Fp8::kE4M3, true), weight_grad.empty ? 0.0f : 1.0f, weight_grad.grad);
  }
  weight_grad.empty = false;
}

void require_fp8_products(Device device) {
  if (device.kind == DeviceKind::kCpu) return;
  const cuda::DeviceProperties properties = cuda::device_properties(device.index);
  check<ConfigError>(properties.major * 10 + properties.minor >= 89, "train.fp8: ", device, " is a ", properties.name,
                     " of compute capability ", properties.major, ".", properties.minor,
                     "; 8-bit products need 8.9 (Ada, Hopper) or newer: use train.dtype=bf16 without it");
}

}  // namespace trireme
