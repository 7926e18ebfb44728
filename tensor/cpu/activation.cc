#include "tensor/cpu/activation.h"

#include "tensor/cpu/column_sum.h"
#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// gelu(x) = x S(x) with S a distribution function: normal_cdf(x) if exact, else
//   (1 + tanh u) / 2 = sigmoid(2u),  u = sqrt(2/pi) (x + 0.044715 x^3).
constexpr float kTwoU = 1.5957691216057308f, kCubic = 0.044715f;

// Squares are capped so that no infinity meets a zero; the distribution function has long been 0 or 1 there.
inline float capped_square(float x) { return x * x < 1e6f ? x * x : 1e6f; }
inline Vec capped_square(Vec x) {
  const Vec cap = broadcast(1e6f);
  return x * x < cap ? x * x : cap;
}

// 1/x for x in [1, 2^126]. A division of 16 lanes takes as long as 30 multiplications.
inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  // Its zero-masking form: gcc 12 warns of its own header in the plain one.
  const Vec r = _mm512_maskz_rcp14_ps(0xffff, x);
  return r * (2.0f - x * r);  // Newton's step, from 14 bits to all but the last
#else
  return 1.0f / x;
#endif
}

// 1 / (1 + 2^-z) and, with it, 2^-z, from which the slope comes without taking anything from 1. The value is 0 below
// z = -126; NaN stays NaN.
struct BaseTwoSigmoid {
  Vec value, power;
};
inline BaseTwoSigmoid base_two_sigmoid(Vec z) {
  const Vec lowest = broadcast(-126.0f);
  const Vec power = exp2_vec(z < lowest ? 0.0f - lowest : 0.0f - z), r = reciprocal(1.0f + power);
  return {z < lowest ? Vec{} : r, power};
}

constexpr float kLog2E = 1.4426950408889634f;

struct TanhGelu {
  static Vec value(Vec x) {
    return x * base_two_sigmoid(kTwoU * kLog2E * x * (1.0f + kCubic * capped_square(x))).value;
  }
  // S(x) + x S'(x)
  static Vec slope(Vec x) {
    const Vec square = capped_square(x);
    const BaseTwoSigmoid s = base_two_sigmoid(kTwoU * kLog2E * x * (1.0f + kCubic * square));
    return s.value + x * (s.power * s.value * s.value) * (kTwoU * (1.0f + 3.0f * kCubic * square));
  }
};

template <class T, class Gelu>
void gelu_row(T* y, const T* x, const T* bias, int64_t dim) {
  int64_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) {
    const Vec in = load_vec(x + c);
    store_vec(y + c, Gelu::value(bias ? in + load_vec(bias + c) : in));
  }
  if (c == dim) return;
  const Vec in = load_part(x + c, dim - c);
  store_part(y + c, Gelu::value(bias ? in + load_part(bias + c, dim - c) : in), dim - c);
}

template <class T, class Gelu>
void gelu_backward_row(T* dx, float* dbias, const T* dy, const T* x, const T* bias, int64_t dim) {
  int64_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) {
    const Vec in = load_vec(x + c), d = load_vec(dy + c) * Gelu::slope(bias ? in + load_vec(bias + c) : in);
    store_vec(dx + c, d);
    if (dbias) store_vec(dbias + c, load_vec(dbias + c) + d);
  }
  if (c == dim) return;
  const int64_t n = dim - c;
  const Vec in = load_part(x + c, n),
            d = load_part(dy + c, n) * Gelu::slope(bias ? in + load_part(bias + c, n) : in);
  store_part(dx + c, d, n);
  if (dbias) store_part(dbias + c, load_part(dbias + c, n) + d, n);
}

// The loops of the exact form are left to the compiler, in functions of their own: after inlining gcc finds some of
// them too involved to vectorise.
struct ExactGelu {
  static float value(float x) { return x * normal_cdf(x); }
  static float slope(float x) {
    const float density = 0.3989422804014327f * fast_exp_nonpositive(-0.5f * capped_square(x));
    return normal_cdf(x) + x * density;
  }
};

template <class T>
[[gnu::noinline]] void exact_gelu_row(T* y, const T* x, const T* bias, int64_t dim) {
  if (bias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(y + c, ExactGelu::value(load(x + c) + load(bias + c)));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(y + c, ExactGelu::value(load(x + c)));
  }
}

template <class T>
[[gnu::noinline]] void exact_gelu_backward_row(T* dx, float* dbias, const T* dy, const T* x, const T* bias,
                                               int64_t dim) {
  if (bias && dbias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) {
      const float d = load(dy + c) * ExactGelu::slope(load(x + c) + load(bias + c));
      store(dx + c, d);
      dbias[c] += d;
    }
  } else if (bias) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(dx + c, load(dy + c) * ExactGelu::slope(load(x + c) + load(bias + c)));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) store(dx + c, load(dy + c) * ExactGelu::slope(load(x + c)));
  }
}

template <class T>
void gelu_backward_rows(bool exact, T* dx, float* dbias, float* partial, const T* dy, const T* x, const T* bias, int64_t rows,
                        int64_t dim) {
  for_row_blocks(rows, dim, [&](int64_t block, int64_t begin, int64_t end) {
    float* sum = dbias ? partial + block * dim : nullptr;
    if (sum)
      for (int64_t c = 0; c < dim; ++c) sum[c] = 0;
    for (int64_t t = begin; t < end; ++t)
      (exact ? exact_gelu_backward_row<T> : gelu_backward_row<T, TanhGelu>)(dx + t * dim, sum, dy + t * dim,
                                                                             x + t * dim, bias, dim);
  });
}

// The gates of up to kLanes columns and what both directions need of them: the sigmoid and silu's slope.
struct Silu {
  Vec value, slope;  // g s; s (1 + g (1 - s)), s = sigmoid(g)
  explicit Silu(Vec g) {
    const BaseTwoSigmoid s = base_two_sigmoid(kLog2E * g);
    value = g * s.value;
    slope = s.value + value * (s.power * s.value);
  }
};

template <class T>
void swiglu_row(T* y, const T* gate, const T* up, int64_t dim) {
  int64_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) store_vec(y + c, Silu(load_vec(gate + c)).value * load_vec(up + c));
  if (c < dim) store_part(y + c, Silu(load_part(gate + c, dim - c)).value * load_part(up + c, dim - c), dim - c);
}

template <class T>
void swiglu_backward_row(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t dim) {
  int64_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) {
    const Vec d = load_vec(dy + c), u = load_vec(up + c);
    const Silu s(load_vec(gate + c));
    store_vec(dgate + c, d * u * s.slope);
    store_vec(dup + c, d * s.value);
  }
  if (c == dim) return;
  const int64_t n = dim - c;
  const Vec d = load_part(dy + c, n), u = load_part(up + c, n);
  const Silu s(load_part(gate + c, n));
  store_part(dgate + c, d * u * s.slope, n);
  store_part(dup + c, d * s.value, n);
}

}  // namespace

void bias_gelu(void* y, const void* x, const void* bias, DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* out = static_cast<T*>(y);
    const T *in = static_cast<const T*>(x), *b = static_cast<const T*>(bias);
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t)
      (exact ? exact_gelu_row<T> : gelu_row<T, TanhGelu>)(out + t * dim, in + t * dim, b, dim);
  });
}

void bias_gelu_backward(void* dx, float* dbias, float* partial, const void* dy, const void* x, const void* bias,
                        DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    gelu_backward_rows(exact, static_cast<T*>(dx), dbias, partial, static_cast<const T*>(dy),
                       static_cast<const T*>(x), static_cast<const T*>(bias), rows, dim);
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
