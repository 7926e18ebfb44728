#include "tensor/ops/norm_backward.h"

#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/norm.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"

namespace trireme {

cpu::NormForward prepare_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& norm_bias,
                              bool centered, float eps, bool saving, Tensor& normed, SavedNorm& saved) {
  check_rows(op, "x", x);
  check_vector(op, "weight", weight, x);
  if (centered) check_vector(op, "bias", norm_bias, x);
  check<ConfigError>(eps > 0, op, ": eps is ", eps, "; it must be above 0");
  normed = empty_like(x);
  cpu::NormForward a;
  a.dtype = x.dtype();
  a.rows = x.dim(0);
  a.dim = x.dim(1);
  a.centered = centered;
  a.eps = eps;
  a.weight = weight.raw();
  a.norm_bias = centered ? norm_bias.raw() : nullptr;
  a.normed = normed.raw();
  saved.centered = centered;
  if (saving) {
    saved.weight = weight.detach();
    saved.rstd = empty({a.rows}, DType::kF32, x.device());
    a.rstd = saved.rstd.data<float>();
    if (centered) {
      saved.mean = empty({a.rows}, DType::kF32, x.device());
      a.mean = saved.mean.data<float>();
    }
  }
  return a;
}

NormGrads norm_backward(const SavedNorm& saved, const Tensor& dnormed, const Tensor& dsum,
                        const cpu::DropoutMask& mask, bool wants_dropped, bool wants_bias) {
  const Tensor& x = saved.input;
  const int64_t rows = x.dim(0), dim = x.dim(1);
  NormGrads g;
  g.input = empty_like(x);
  g.weight = empty({dim}, DType::kF32, x.device());
  if (saved.centered) g.norm_bias = empty({dim}, DType::kF32, x.device());
  if (wants_bias) g.bias = empty({dim}, DType::kF32, x.device());
  if (wants_dropped && mask.active()) g.dropped = empty_like(x);
  Tensor partial = empty({cpu::column_partials(rows), 3, dim}, DType::kF32, x.device());

  cpu::NormBackward a;
  a.dtype = x.dtype();
  a.rows = rows;
  a.dim = dim;
  a.centered = saved.centered;
  a.input = x.raw();
  a.weight = saved.weight.raw();
  a.mean = saved.centered ? saved.mean.data<float>() : nullptr;
  a.rstd = saved.rstd.data<float>();
  a.dnormed = dnormed.raw();
  a.dsum = dsum.defined() ? dsum.raw() : nullptr;
  a.dinput = g.input.raw();
  a.mask = mask;
  a.dx = g.dropped.raw();
  a.dweight = g.weight.data<float>();
  a.dnorm_bias = saved.centered ? g.norm_bias.data<float>() : nullptr;
  a.dbias = wants_bias ? g.bias.data<float>() : nullptr;
  a.partial = partial.data<float>();
  on(x.device(), cpu::norm_backward, cuda::norm_backward)(a);
  return g;
}

}  // namespace trireme
