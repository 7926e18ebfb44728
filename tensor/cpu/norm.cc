#include "tensor/cpu/norm.h"

#include "tensor/cpu/column_sum.h"
#include "tensor/cpu/residual_row.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// One row, which stays in the first cache over its passes: mean, centered squares (not E[x^2] - mean^2, which would
// cancel), output.
template <class T, bool kCentered>
[[gnu::noinline]] void norm_row(const T* x, const T* weight, const T* bias, T* y, int64_t dim, float eps, float* mean_out,
                     float* rstd_out) {
  float mean = 0;
  if constexpr (kCentered) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < dim; ++c) sum += load(x + c);
    mean = sum / static_cast<float>(dim);
  }
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < dim; ++c) {
    const float v = load(x + c) - mean;
    squares += v * v;
  }
  const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(dim) + eps);
  if constexpr (kCentered) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c)
      store(y + c, (load(x + c) - mean) * rstd * load(weight + c) + load(bias + c));
    if (mean_out) *mean_out = mean;
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(y + c, load(x + c) * rstd * load(weight + c));
  }
  if (rstd_out) *rstd_out = rstd;
}

template <class T, bool kCentered>
void forward_rows(const NormForward& a) {
  const int64_t dim = a.dim;
#pragma omp parallel for schedule(static) if (a.rows * dim > kParallelElements)
  for (int64_t t = 0; t < a.rows; ++t) {
    const T* in = static_cast<const T*>(a.x) + t * dim;
    if (a.residual) {
      T* sum = static_cast<T*>(a.sum) + t * dim;
      add_bias_dropout_row(sum, static_cast<const T*>(a.residual) + t * dim, in, static_cast<const T*>(a.bias), a.mask,
                           t, dim);
      in = sum;  // as rounded: backward sees the same values, and so would an unfused norm
    }
    norm_row<T, kCentered>(in, static_cast<const T*>(a.weight), static_cast<const T*>(a.norm_bias),
                           static_cast<T*>(a.normed) + t * dim, dim, a.eps, a.mean ? a.mean + t : nullptr,
                           a.rstd ? a.rstd + t : nullptr);
  }
}

// With n = (x - mean) rstd and g = dy weight:  dx = rstd (g - avg(g) - n avg(g n)), without avg(g) for RMSNorm.
// Adds dy n to dweight and dy to dbias.
template <class T, bool kCentered>
[[gnu::noinline]] void norm_backward_row(const T* x, const T* weight, const T* dy, const T* dsum, T* dx, int64_t dim, float mean,
                              float rstd, float* dweight, float* dbias) {
  float g_sum = 0, gn_sum = 0;
  if constexpr (kCentered) {
#pragma omp simd reduction(+ : g_sum, gn_sum)
    for (int64_t c = 0; c < dim; ++c) {
      const float n = (load(x + c) - mean) * rstd, d = load(dy + c), g = d * load(weight + c);
      dweight[c] += d * n;
      dbias[c] += d;
      g_sum += g;
      gn_sum += g * n;
    }
  } else {
#pragma omp simd reduction(+ : gn_sum)
    for (int64_t c = 0; c < dim; ++c) {
      const float n = load(x + c) * rstd, d = load(dy + c);
      dweight[c] += d * n;
      gn_sum += d * load(weight + c) * n;
    }
  }
  const float g_mean = g_sum / static_cast<float>(dim), gn_mean = gn_sum / static_cast<float>(dim);
  if (dsum) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) {
      const float n = (load(x + c) - mean) * rstd, g = load(dy + c) * load(weight + c);
      store(dx + c, load(dsum + c) + rstd * (g - g_mean - n * gn_mean));
    }
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) {
      const float n = (load(x + c) - mean) * rstd, g = load(dy + c) * load(weight + c);
      store(dx + c, rstd * (g - g_mean - n * gn_mean));
    }
  }
}

template <class T, bool kCentered>
void backward_rows(const NormBackward& a) {
  const int64_t dim = a.dim;
  for_row_blocks(a.rows, dim, [&](int64_t block, int64_t begin, int64_t end) {
    float* dweight = a.partial + block * 3 * dim;
    float* dnorm_bias = dweight + dim;
    float* dbias = a.dbias ? dweight + 2 * dim : nullptr;
    for (int64_t c = 0; c < 3 * dim; ++c) dweight[c] = 0;
    for (int64_t t = begin; t < end; ++t) {
      T* dinput = static_cast<T*>(a.dinput) + t * dim;
      norm_backward_row<T, kCentered>(static_cast<const T*>(a.input) + t * dim, static_cast<const T*>(a.weight),
                                      static_cast<const T*>(a.dnormed) + t * dim,
                                      a.dsum ? static_cast<const T*>(a.dsum) + t * dim : nullptr, dinput, dim,
                                      kCentered ? a.mean[t] : 0.0f, a.rstd[t], dweight, dnorm_bias);
      if (a.dx || dbias)
        dropout_backward_row(a.dx ? static_cast<T*>(a.dx) + t * dim : nullptr, dbias, dinput, a.mask, t, dim);
    }
  });
}

}  // namespace

void norm_forward(const NormForward& a) {
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    a.centered ? forward_rows<T, true>(a) : forward_rows<T, false>(a);
  });
}

void norm_backward(const NormBackward& a) {
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    a.centered ? backward_rows<T, true>(a) : backward_rows<T, false>(a);
  });
  const int64_t partials = column_partials(a.rows), stride = 3 * a.dim;
  add_partials(a.dweight, a.partial, partials, stride, a.dim);
  if (a.centered) add_partials(a.dnorm_bias, a.partial + a.dim, partials, stride, a.dim);
  if (a.dbias) add_partials(a.dbias, a.partial + 2 * a.dim, partials, stride, a.dim);
}

}  // namespace trireme::cpu::TRIREME_ISA
