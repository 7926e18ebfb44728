#include "tensor/cuda/bias.h"

#include "tensor/cuda/partials.h"
#include "tensor/cuda/rows.cuh"
#include "tensor/cuda/scratch.h"

namespace trireme::cuda {
namespace {

template <class T>
struct AddBias {
  T* y;
  const T* bias;
  int64_t columns;

  template <int N>
  struct Column {
    float bias[N];
  };
  template <int N>
  struct State {
    Packed<T, N> y;
  };
  template <int N>
  __device__ void load_column(Column<N>& column, int64_t c) const { load_n<N>(column.bias, bias + c); }
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const { s.y = load_packed<N>(y + row * columns + c); }
  template <int N>
  __device__ void finish(const Column<N>& column, const State<N>& s, int64_t row, int64_t c) const {
    float v[N];
    unpack(v, s.y);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += column.bias[i];
    store_n<N>(y + row * columns + c, v);
  }
};

template <class T>
struct ColumnSum {
  const T* x;
  int64_t columns;

  template <int N>
  struct Column {};
  template <int N>
  struct State {
    Packed<T, N> x;
  };
  template <int N>
  __device__ void load_column(Column<N>&, int64_t) const {}
  template <int N>
  __device__ void load(State<N>& s, int64_t row, int64_t c) const { s.x = load_packed<N>(x + row * columns + c); }
  template <int N>
  __device__ void finish(const Column<N>&, const State<N>& s, int64_t, int64_t, float (&sum)[N]) const {
    float v[N];
    unpack(v, s.x);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += v[i];
  }
};

}  // namespace

void add_bias(void* y, const void* bias, DType dtype, int64_t rows, int64_t columns) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_rows<kVector<T>>("add_bias", AddBias<T>{static_cast<T*>(y), static_cast<const T*>(bias), columns}, rows,
                            columns, columns % kVector<T> == 0 && aligned16(y, bias));
  });
}

void column_sum(const void* x, DType dtype, int64_t rows, int64_t columns, bool add, float* sum) {
  const int64_t partials = cpu::column_partials(rows);
  Scratch scratch(static_cast<size_t>(partials * columns) * sizeof(float));
  float* partial = scratch.as<float>();
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_row_blocks<kVector<T>>("column_sum", ColumnSum<T>{static_cast<const T*>(x), columns}, partial, rows, columns,
                                  columns % kVector<T> == 0 && aligned16(x));
  });
  add_partials(sum, partial, partials, columns, columns, add);
}

}  // namespace trireme::cuda
