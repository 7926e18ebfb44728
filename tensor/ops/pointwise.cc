#include "tensor/ops/pointwise.h"

#include <algorithm>
#include <cmath>

#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

Tensor as_f32(const Tensor& t) { return t.dtype() == DType::kF32 ? t.detach() : cast(t.detach(), DType::kF32); }

// y = f(x); dx = dy * slope(y).
template <class F, class Slope>
Tensor pointwise(const char* op, const Tensor& x, F f, Slope slope) {
  check_rows(op, "x", x);
  check_on_host(op, "x", x);
  const Tensor from = as_f32(x), values = empty(x.shape(), DType::kF32);
  std::transform(from.data<float>(), from.data<float>() + from.numel(), values.data<float>(), f);
  Tensor y = x.dtype() == DType::kF32 ? values : cast(values, x.dtype());
  if (Tape* tape = recording({x})) {
    tape->record(op, {x}, {&y}, [y = y.detach(), slope](Grads& grads) {
      const Tensor out = as_f32(y), dy = as_f32(grads.out()), dx = empty(y.shape(), DType::kF32);
      for (int64_t i = 0; i < dx.numel(); ++i) dx.data<float>()[i] = dy.data<float>()[i] * slope(out.data<float>()[i]);
      grads.add(0, y.dtype() == DType::kF32 ? dx : cast(dx, y.dtype()));
    });
  }
  return y;
}

}  // namespace

Tensor tanh_of(const Tensor& x) {
  return pointwise("tanh", x, [](float v) { return std::tanh(v); }, [](float y) { return 1 - y * y; });
}

Tensor relu_of(const Tensor& x) {
  return pointwise("relu", x, [](float v) { return std::max(v, 0.0f); }, [](float y) { return y > 0 ? 1.0f : 0.0f; });
}

}  // namespace trireme
