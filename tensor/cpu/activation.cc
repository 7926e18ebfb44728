#include "tensor/cpu/activation.h"

#include "tensor/cpu/column_sum.h"
#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// gelu(x) = x S(x) with S a distribution function: normal_cdf(x) if exact, else
//   (1 + tanh u) / 2 = sigmoid(2u),  u = sqrt(2/pi) (x + 0.044715 x^3).
constexpr float kTwoU = 1.5957691216057308f, kCubic = 0.044715f;

// Squares are capped so that no infinity meets a zero; the sigmoid has long been 0 or 1 there.
inline float capped_square(float x) { return x * x < 1e6f ? x * x : 1e6f; }

template <bool kExact>
inline float gelu(float x) {
  if constexpr (kExact) return x * normal_cdf(x);
  return x * fast_sigmoid(kTwoU * x * (1.0f + kCubic * capped_square(x)));
}

// S(x) + x S'(x)
template <bool kExact>
inline float gelu_slope(float x) {
  const float square = capped_square(x);
  if constexpr (kExact) {
    const float density = 0.3989422804014327f * fast_exp_nonpositive(-0.5f * square);
    return normal_cdf(x) + x * density;
  }
  const Sigmoid s = sigmoid_with_slope(kTwoU * x * (1.0f + kCubic * square));
  return s.value + x * s.slope * (kTwoU * (1.0f + 3.0f * kCubic * square));
}

// The loops over a row are functions of their own, not inlined: after inlining gcc finds some of them too involved to
// vectorise.
template <class T, bool kExact>
[[gnu::noinline]] void gelu_row(T* y, const T* x, const T* bias, int64_t dim) {
  if (bias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(y + c, gelu<kExact>(load(x + c) + load(bias + c)));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(y + c, gelu<kExact>(load(x + c)));
  }
}

template <class T, bool kExact>
[[gnu::noinline]] void gelu_backward_row(T* dx, float* dbias, const T* dy, const T* x, const T* bias, int64_t dim) {
  if (bias && dbias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) {
      const float d = load(dy + c) * gelu_slope<kExact>(load(x + c) + load(bias + c));
      store(dx + c, d);
      dbias[c] += d;
    }
  } else if (bias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c)
      store(dx + c, load(dy + c) * gelu_slope<kExact>(load(x + c) + load(bias + c)));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(dx + c, load(dy + c) * gelu_slope<kExact>(load(x + c)));
  }
}

template <class T, bool kExact>
void gelu_backward_rows(T* dx, float* dbias, float* partial, const T* dy, const T* x, const T* bias, int64_t rows,
                        int64_t dim) {
  for_row_blocks(rows, dim, [&](int64_t block, int64_t begin, int64_t end) {
    float* sum = dbias ? partial + block * dim : nullptr;
    if (sum)
      for (int64_t c = 0; c < dim; ++c) sum[c] = 0;
    for (int64_t t = begin; t < end; ++t)
      gelu_backward_row<T, kExact>(dx + t * dim, sum, dy + t * dim, x + t * dim, bias, dim);
  });
}

template <class T>
[[gnu::noinline]] void swiglu_row(T* y, const T* gate, const T* up, int64_t dim) {
#pragma omp simd
  for (int64_t c = 0; c < dim; ++c) {
    const float g = load(gate + c);
    store(y + c, g * fast_sigmoid(g) * load(up + c));
  }
}

// silu'(g) = s (1 + g (1 - s)), s = sigmoid(g)
template <class T>
[[gnu::noinline]] void swiglu_backward_row(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t dim) {
#pragma omp simd
  for (int64_t c = 0; c < dim; ++c) {
    const float g = load(gate + c), d = load(dy + c), u = load(up + c);
    const Sigmoid s = sigmoid_with_slope(g);
    store(dgate + c, d * u * (s.value + g * s.slope));
    store(dup + c, d * (g * s.value));
  }
}

}  // namespace

void bias_gelu(void* y, const void* x, const void* bias, DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* out = static_cast<T*>(y);
    const T *in = static_cast<const T*>(x), *b = static_cast<const T*>(bias);
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t) {
      if (exact)
        gelu_row<T, true>(out + t * dim, in + t * dim, b, dim);
      else
        gelu_row<T, false>(out + t * dim, in + t * dim, b, dim);
    }
  });
}

void bias_gelu_backward(void* dx, float* dbias, float* partial, const void* dy, const void* x, const void* bias,
                        DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto run = exact ? gelu_backward_rows<T, true> : gelu_backward_rows<T, false>;
    run(static_cast<T*>(dx), dbias, partial, static_cast<const T*>(dy), static_cast<const T*>(x),
        static_cast<const T*>(bias), rows, dim);
  });
  if (dbias) add_partials(dbias, partial, column_partials(rows), dim, dim);
}

void swiglu(void* y, const void* gate_up, DType dtype, int64_t rows, int64_t dim) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t) {
      const T* gate = static_cast<const T*>(gate_up) + t * 2 * dim;
      swiglu_row(static_cast<T*>(y) + t * dim, gate, gate + dim, dim);
    }
  });
}

void swiglu_backward(void* dgate_up, const void* dy, const void* gate_up, DType dtype, int64_t rows, int64_t dim) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t) {
      const T* gate = static_cast<const T*>(gate_up) + t * 2 * dim;
      T* dgate = static_cast<T*>(dgate_up) + t * 2 * dim;
      swiglu_backward_row(dgate, dgate + dim, static_cast<const T*>(dy) + t * dim, gate, gate + dim, dim);
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
