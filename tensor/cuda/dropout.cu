#include "tensor/cuda/dropout.h"

#include "tensor/cuda/partials.h"
#include "tensor/cuda/rows.cuh"

namespace trireme::cuda {
namespace {

template <class T>
struct AddBiasDropout {
  T* y;
  const T *residual, *x, *bias;  // residual null: y = dropout(x)
  int64_t dim;
  cpu::DropoutMask mask;

  template <int N>
  struct Column {
    float bias[N];
  };
  template <int N>
  struct State {
    Packed<T, N> residual, x;
  };
  template <int N>
  __device__ void load_column(Column<N>& column, int64_t c) const {
    if (bias) return load_n<N>(column.bias, bias + c);
#pragma unroll
    for (int i = 0; i < N; ++i) column.bias[i] = -0.0f;  // leaves x as it is, the sign of a zero included
  }
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const {
    s.x = load_packed<N>(x + row * dim + c);
    if (residual) s.residual = load_packed<N>(residual + row * dim + c);
  }
  template <int N>
  __device__ void finish(const Column<N>& column, const State<N>& s, int64_t row, int64_t c) const {
    float v[N];
    unpack(v, s.x);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += column.bias[i];
    apply_mask(v, mask, row, c);
    if (residual) {
      float base[N];
      unpack(base, s.residual);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += base[i];
    }
    store_n<N>(y + row * dim + c, v);
  }
};

template <class T>
struct DropoutBackward {
  T* dx;  // may be null
  const T* dy;
  int64_t dim;
  cpu::DropoutMask mask;

  template <int N>
  struct Column {};
  template <int N>
  struct State {
    Packed<T, N> dy;
  };
  template <int N>
  __device__ void load_column(Column<N>&, int64_t) const {}
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const { s.dy = load_packed<N>(dy + row * dim + c); }
  template <int N>
  __device__ void finish(const Column<N>&, const State<N>& s, int64_t row, int64_t c, float (&sum)[N]) const {
    float v[N];
    unpack(v, s.dy);
    apply_mask(v, mask, row, c);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += v[i];
    if (dx) store_n<N>(dx + row * dim + c, v);
  }
};

}  // namespace

void dropout(void* y, const void* x, DType dtype, int64_t rows, int64_t dim, const cpu::DropoutMask& mask) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const AddBiasDropout<T> op{static_cast<T*>(y), nullptr, static_cast<const T*>(x), nullptr, dim, mask};
    launch_rows<kVector<T>>("dropout", op, rows, dim, dim % kVector<T> == 0 && aligned16(y, x));
  });
}

void add_bias_dropout(void* y, const void* residual, const void* x, const void* bias, DType dtype, int64_t rows,
                      int64_t dim, const cpu::DropoutMask& mask) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const AddBiasDropout<T> op{static_cast<T*>(y),           static_cast<const T*>(residual), static_cast<const T*>(x),
                               static_cast<const T*>(bias), dim,                             mask};
    launch_rows<kVector<T>>("add_bias_dropout", op, rows, dim,
                            dim % kVector<T> == 0 && aligned16(y, residual, x, bias));
  });
}

void add_bias_dropout_backward(void* dx, float* dbias, float* partial, const void* dy, DType dtype, int64_t rows,
                               int64_t dim, const cpu::DropoutMask& mask) {
  if (!dx && !dbias) return;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const DropoutBackward<T> op{static_cast<T*>(dx), static_cast<const T*>(dy), dim, mask};
    launch_row_blocks<kVector<T>>("add_bias_dropout_backward", op, dbias ? partial : nullptr, rows, dim,
                                  dim % kVector<T> == 0 && aligned16(dx, dy));
  });
  if (dbias) add_partials(dbias, partial, cpu::column_partials(rows), dim, dim);
}

}  // namespace trireme::cuda
