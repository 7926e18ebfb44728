#include "tensor/cuda/activation.h"

#include "tensor/cuda/partials.h"
#include "tensor/cuda/rows.cuh"

namespace trireme::cuda {
namespace {

// gelu(x) = x S(x) with S a distribution function: the normal one if exact, else
//   (1 + tanh u) / 2 = sigmoid(2u),  u = sqrt(2/pi) (x + 0.044715 x^3).
constexpr float kTwoU = 1.5957691216057308f, kCubic = 0.044715f;

// Squares are capped so that no infinity meets a zero; the sigmoid has long been 0 or 1 there.
__device__ inline float capped_square(float x) { return x * x < 1e6f ? x * x : 1e6f; }

template <class T>
__device__ inline float exp_for(float x) {
  if constexpr (sizeof(T) == 2) return __expf(x);
  else return expf(x);
}
template <class T>
__device__ inline float divide_for(float a, float b) {
  if constexpr (sizeof(T) == 2) return __fdividef(a, b);
  else return a / b;
}
template <class T>
__device__ inline float normal_cdf(float x) {
  // For 16-bit results what cancels in 1 + erf is far below their spacing.
  if constexpr (sizeof(T) == 2) return 0.5f + 0.5f * erff(x * 0.70710678f);
  else return normcdff(x);
}

// s = 1 / (1 + e^-x) and its slope s (1 - s): neither subtracts from 1.
struct Sigmoid {
  float value, slope;
};
template <class T>
__device__ inline Sigmoid sigmoid_with_slope(float x) {
  const float e = exp_for<T>(-fabsf(x)), larger = divide_for<T>(1.0f, 1.0f + e), smaller = e * larger;
  return {x < 0.0f ? smaller : larger, smaller * larger};
}

template <class T, bool kExact>
__device__ inline float gelu(float x) {
  if constexpr (kExact) return x * normal_cdf<T>(x);
  else return x * sigmoid_with_slope<T>(kTwoU * x * (1.0f + kCubic * capped_square(x))).value;
}

// S(x) + x S'(x)
template <class T, bool kExact>
__device__ inline float gelu_slope(float x) {
  const float square = capped_square(x);
  if constexpr (kExact) {
    return normal_cdf<T>(x) + x * (0.3989422804014327f * exp_for<T>(-0.5f * square));
  } else {
    const Sigmoid s = sigmoid_with_slope<T>(kTwoU * x * (1.0f + kCubic * square));
    return s.value + x * s.slope * (kTwoU * (1.0f + 3.0f * kCubic * square));
  }
}

// A bias, or what leaves x + bias as it is, the sign of a zero included.
template <int N, class T>
__device__ inline void load_bias(float (&out)[N], const T* bias, int64_t c) {
  if (bias) return load_n<N>(out, bias + c);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = -0.0f;
}

template <class T, bool kExact>
struct BiasGelu {
  T* y;
  const T *x, *bias;
  int64_t dim;

  template <int N>
  struct Column {
    float bias[N];
  };
  template <int N>
  struct State {
    Packed<T, N> x;
  };
  template <int N>
  __device__ void load_column(Column<N>& column, int64_t c) const { load_bias(column.bias, bias, c); }
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const { s.x = load_packed<N>(x + row * dim + c); }
  template <int N>
  __device__ void finish(const Column<N>& column, const State<N>& s, int64_t row, int64_t c) const {
    float v[N];
    unpack(v, s.x);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = gelu<T, kExact>(v[i] + column.bias[i]);
    store_n<N>(y + row * dim + c, v);
  }
};

template <class T, bool kExact>
struct BiasGeluBackward {
  T* dx;
  const T *dy, *x, *bias;
  int64_t dim;

  template <int N>
  struct Column {
    float bias[N];
  };
  template <int N>
  struct State {
    Packed<T, N> dy, x;
  };
  template <int N>
  __device__ void load_column(Column<N>& column, int64_t c) const { load_bias(column.bias, bias, c); }
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const {
    s.dy = load_packed<N>(dy + row * dim + c);
    s.x = load_packed<N>(x + row * dim + c);
  }
  template <int N>
  __device__ void finish(const Column<N>& column, const State<N>& s, int64_t row, int64_t c, float (&sum)[N]) const {
    float d[N], v[N];
    unpack(d, s.dy);
    unpack(v, s.x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      d[i] *= gelu_slope<T, kExact>(v[i] + column.bias[i]);
      sum[i] += d[i];
    }
    store_n<N>(dx + row * dim + c, d);
  }
};

template <class T>
struct Swiglu {
  T* y;
  const T* gate_up;
  int64_t dim;

  template <int N>
  struct Column {};
  template <int N>
  struct State {
    Packed<T, N> gate, up;
  };
  template <int N>
  __device__ void load_column(Column<N>&, int64_t) const {}
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const {
    const T* gate = gate_up + row * 2 * dim + c;
    s.gate = load_packed<N>(gate);
    s.up = load_packed<N>(gate + dim);
  }
  template <int N>
  __device__ void finish(const Column<N>&, const State<N>& s, int64_t row, int64_t c) const {
    float g[N], u[N];
    unpack(g, s.gate);
    unpack(u, s.up);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] = g[i] * sigmoid_with_slope<T>(g[i]).value * u[i];
    store_n<N>(y + row * dim + c, u);
  }
};

// silu'(g) = s (1 + g (1 - s)), s = sigmoid(g)
template <class T>
struct SwigluBackward {
  T* dgate_up;
  const T *dy, *gate_up;
  int64_t dim;

  template <int N>
  struct Column {};
  template <int N>
  struct State {
    Packed<T, N> dy, gate, up;
  };
  template <int N>
  __device__ void load_column(Column<N>&, int64_t) const {}
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const {
    const T* gate = gate_up + row * 2 * dim + c;
    s.dy = load_packed<N>(dy + row * dim + c);
    s.gate = load_packed<N>(gate);
    s.up = load_packed<N>(gate + dim);
  }
  template <int N>
  __device__ void finish(const Column<N>&, const State<N>& state, int64_t row, int64_t c) const {
    float d[N], g[N], u[N];
    unpack(d, state.dy);
    unpack(g, state.gate);
    unpack(u, state.up);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Sigmoid s = sigmoid_with_slope<T>(g[i]);
      const float dup = d[i] * (g[i] * s.value);
      g[i] = d[i] * u[i] * (s.value + g[i] * s.slope);
      u[i] = dup;
    }
    T* dgate = dgate_up + row * 2 * dim + c;
    store_n<N>(dgate, g);
    store_n<N>(dgate + dim, u);
  }
};

}  // namespace

void bias_gelu(void* y, const void* x, const void* bias, DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto run = [&](auto op) {
      launch_rows<kVector<T>>("bias_gelu", op, rows, dim, dim % kVector<T> == 0 && aligned16(y, x, bias));
    };
    T* out = static_cast<T*>(y);
    const T *in = static_cast<const T*>(x), *b = static_cast<const T*>(bias);
    if (exact) run(BiasGelu<T, true>{out, in, b, dim});
    else run(BiasGelu<T, false>{out, in, b, dim});
  });
}

void bias_gelu_backward(void* dx, float* dbias, float* partial, const void* dy, const void* x, const void* bias,
                        DType dtype, int64_t rows, int64_t dim, bool exact) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto run = [&](auto op) {
      launch_row_blocks<kVector<T>>("bias_gelu_backward", op, dbias ? partial : nullptr, rows, dim,
                                    dim % kVector<T> == 0 && aligned16(dx, dy, x, bias));
    };
    T* out = static_cast<T*>(dx);
    const T *d = static_cast<const T*>(dy), *in = static_cast<const T*>(x), *b = static_cast<const T*>(bias);
    if (exact) run(BiasGeluBackward<T, true>{out, d, in, b, dim});
    else run(BiasGeluBackward<T, false>{out, d, in, b, dim});
  });
  if (dbias) add_partials(dbias, partial, cpu::column_partials(rows), dim, dim);
}

void swiglu(void* y, const void* gate_up, DType dtype, int64_t rows, int64_t dim) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_rows<kVector<T>>("swiglu", Swiglu<T>{static_cast<T*>(y), static_cast<const T*>(gate_up), dim}, rows, dim,
                            dim % kVector<T> == 0 && aligned16(y, gate_up));
  });
}

void swiglu_backward(void* dgate_up, const void* dy, const void* gate_up, DType dtype, int64_t rows, int64_t dim) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const SwigluBackward<T> op{static_cast<T*>(dgate_up), static_cast<const T*>(dy), static_cast<const T*>(gate_up),
                               dim};
    launch_rows<kVector<T>>("swiglu_backward", op, rows, dim,
                            dim % kVector<T> == 0 && aligned16(dgate_up, dy, gate_up));
  });
}

}  // namespace trireme::cuda
