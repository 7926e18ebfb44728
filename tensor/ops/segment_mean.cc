#include "tensor/ops/segment_mean.h"

#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

Tensor as_f32(const Tensor& t) { return t.dtype() == DType::kF32 ? t.detach() : cast(t.detach(), DType::kF32); }

}  // namespace

Tensor segment_mean(const Tensor& x, const Segments& segments) {
  check_rows("segment_mean", "x", x);
  check_on_host("segment_mean", "x", x);
  check_segments("segment_mean", segments, x.dim(0));
  const int64_t count = segments.count(), dim = x.dim(1);
  const Tensor from = as_f32(x), sums = zeros({count, dim}, DType::kF32);
  const auto start = segments.starts.span<int32_t>();
  for (int64_t s = 0; s < count; ++s) {
    float* y = sums.data<float>() + s * dim;
    for (int64_t t = start[s]; t < start[s + 1]; ++t) {
      const float* row = from.data<float>() + t * dim;
      for (int64_t d = 0; d < dim; ++d) y[d] += row[d];
    }
    const float share = start[s] < start[s + 1] ? 1.0f / static_cast<float>(start[s + 1] - start[s]) : 0.0f;
    for (int64_t d = 0; d < dim; ++d) y[d] *= share;
  }
  Tensor y = x.dtype() == DType::kF32 ? sums : cast(sums, x.dtype());
  if (Tape* tape = recording({x})) {
    tape->record("segment_mean", {x}, {&y}, [starts = segments.starts, shape = x.shape()](Grads& grads) {
      const Tensor dy = as_f32(grads.out()), dx = empty(shape, DType::kF32);
      const auto start = starts.span<int32_t>();
      const int64_t dim = shape[1];
      for (int64_t s = 0; s < dy.dim(0); ++s) {
        const float share = 1.0f / static_cast<float>(std::max(1, start[s + 1] - start[s]));
        for (int64_t t = start[s]; t < start[s + 1]; ++t)
          for (int64_t d = 0; d < dim; ++d) dx.data<float>()[t * dim + d] = dy.data<float>()[s * dim + d] * share;
      }
      const DType dtype = grads.out().dtype();
      grads.add(0, dtype == DType::kF32 ? dx : cast(dx, dtype));
    });
  }
  return y;
}

}  // namespace trireme
