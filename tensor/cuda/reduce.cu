#include "tensor/cuda/reduce.h"

#include "tensor/cpu/reduce.h"
#include "tensor/cuda/flat.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;
using cpu::kSumBlock;

// One block of threads for one block of elements: each thread adds every 256th vector, then the threads are added.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) sum_of_squares_kernel(double* partial, const T* x, int64_t n) {
  const int64_t begin = int64_t{blockIdx.x} * kSumBlock;
  const int64_t count = n - begin < kSumBlock ? n - begin : kSumBlock;
  const T* in = x + begin;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x * N; i + N <= count; i += kThreads * N) {
    float v[N];
    load_n<N>(v, in + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += static_cast<double>(v[k]) * static_cast<double>(v[k]);
  }
  const int64_t rest = count / N * N + threadIdx.x;
  if (rest < count) {
    const double v = load(in + rest);
    sum += v * v;
  }
  __shared__ double shared[kThreads / kWarp];
  sum = block_sum<kThreads>(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) sum_doubles_kernel(double* total, const double* partial, int64_t count) {
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partial[i];
  __shared__ double shared[kThreads / kWarp];
  sum = block_sum<kThreads>(sum, shared);
  if (threadIdx.x == 0) *total = sum;
}

// The bits of an exponent: all set in infinities and NaNs.
__device__ inline bool is_special(float v) { return (__float_as_uint(v) & 0x7f800000u) == 0x7f800000u; }
__device__ inline bool is_special(BF16 v) { return (v.bits & 0x7f80u) == 0x7f80u; }
__device__ inline bool is_special(F16 v) { return (v.bits & 0x7c00u) == 0x7c00u; }

// *finite is true before. All who find something write the same.
template <class T>
struct AllFinite {
  static constexpr int kUnroll = 8;
  bool* finite;
  const T* x;

  template <int N>
  struct State {
    Packed<T, N> x;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const { s.x = load_packed<N>(x + i); }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t) const {
    bool found = false;
#pragma unroll
    for (int k = 0; k < N; ++k) found |= is_special(s.x.element[k]);
    if (found) *finite = false;
  }
};

template <class T>
struct Scale {
  static constexpr int kUnroll = 4;
  T* x;
  float factor;

  template <int N>
  struct State {
    Packed<T, N> x;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const { s.x = load_packed<N>(x + i); }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    float v[N];
    unpack(v, s.x);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] *= factor;
    store_n<N>(x + i, v);
  }
};

template <class T>
struct Axpy {
  static constexpr int kUnroll = 4;
  T* y;
  float a;
  const T* x;

  template <int N>
  struct State {
    Packed<T, N> y, x;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const {
    s.y = load_packed<N>(y + i);
    s.x = load_packed<N>(x + i);
  }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    float u[N], v[N];
    unpack(u, s.y);
    unpack(v, s.x);
#pragma unroll
    for (int k = 0; k < N; ++k) u[k] += a * v[k];
    store_n<N>(y + i, u);
  }
};

template <class T>
struct Fill {
  static constexpr int kUnroll = 4;
  T* x;
  float value;

  template <int N>
  struct State {};
  template <int N>
  __device__ void load(State<N>&, int64_t) const {}
  template <int N>
  __device__ void finish(const State<N>&, int64_t i) const {
    float v[N];
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = value;
    store_n<N>(x + i, v);
  }
};

template <class To, class From>
struct Cast {
  static constexpr int kUnroll = 4;
  To* y;
  const From* x;

  template <int N>
  struct State {
    Packed<From, N> x;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const { s.x = load_packed<N>(x + i); }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    float v[N];
    unpack(v, s.x);
    store_n<N>(y + i, v);
  }
};

template <class Word>
__global__ void __launch_bounds__(256)
    copy_rows_kernel(char* y, const char* x, int64_t rows, int64_t words, int64_t row_bytes, int64_t stride_bytes) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  Word* to = reinterpret_cast<Word*>(y + row * row_bytes);
  const Word* from = reinterpret_cast<const Word*>(x + row * stride_bytes);
#pragma unroll 4
  for (int64_t w = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; w < words; w += int64_t{gridDim.y} * blockDim.x)
    to[w] = from[w];
}

template <class Word>
void copy_rows_as(char* y, const char* x, int64_t rows, int64_t row_bytes, int64_t stride_bytes) {
  const int64_t words = row_bytes / static_cast<int64_t>(sizeof(Word));
  const dim3 block = row_shape(words);
  // A long row is shared by blocks, each thread of which copies about four words.
  const int64_t shares = divide_up(words, int64_t{block.x} * 4);
  const dim3 grid(static_cast<unsigned>(divide_up(rows, block.y)), static_cast<unsigned>(shares < 65535 ? shares : 65535));
  launch("copy_rows", copy_rows_kernel<Word>, {grid, block}, y, x, rows, words, row_bytes, stride_bytes);
}

}  // namespace

void sum_of_squares(double* partial, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto kernel = aligned16(x) ? sum_of_squares_kernel<T, kVector<T>> : sum_of_squares_kernel<T, 1>;
    launch("sum_of_squares", kernel, {dim3(static_cast<unsigned>(divide_up(n, kSumBlock))), dim3(kThreads)}, partial,
           static_cast<const T*>(x), n);
  });
}

void sum_doubles(double* total, const double* partial, int64_t count) {
  launch("sum_doubles", sum_doubles_kernel, {dim3(1), dim3(kThreads)}, total, partial, count);
}

void all_finite(bool* finite, const void* x, DType dtype, int64_t n) {
  check(cudaMemsetAsync(finite, 1, sizeof(bool), stream()), "all_finite");
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("all_finite", AllFinite<T>{finite, static_cast<const T*>(x)}, n, aligned16(x));
  });
}

void scale_in_place(void* x, float factor, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("scale_in_place", Scale<T>{static_cast<T*>(x), factor}, n, aligned16(x));
  });
}

void axpy(void* y, float a, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("axpy", Axpy<T>{static_cast<T*>(y), a, static_cast<const T*>(x)}, n, aligned16(y, x));
  });
}

void fill(void* x, float value, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("fill", Fill<T>{static_cast<T*>(x), value}, n, aligned16(x));
  });
}

void cast(void* y, DType to, const void* x, DType from, int64_t n) {
  with_float_type(to, [&](auto* to_tag) {
    with_float_type(from, [&](auto* from_tag) {
      using To = std::remove_pointer_t<decltype(to_tag)>;
      using From = std::remove_pointer_t<decltype(from_tag)>;
      // A thread has eight elements: 16 bytes of a 16-bit side, twice that of an f32 one.
      launch_flat<8>("cast", Cast<To, From>{static_cast<To*>(y), static_cast<const From*>(x)}, n, aligned16(y, x));
    });
  });
}

void copy_rows(void* y, const void* x, int64_t rows, int64_t row_bytes, int64_t stride_bytes) {
  char* to = static_cast<char*>(y);
  const char* from = static_cast<const char*>(x);
  // The alignment that all four share. A single row has no stride.
  const uint64_t all = reinterpret_cast<uintptr_t>(y) | reinterpret_cast<uintptr_t>(x) |
                       static_cast<uint64_t>(row_bytes) | (rows > 1 ? static_cast<uint64_t>(stride_bytes) : 0);
  if (all % 16 == 0) copy_rows_as<uint4>(to, from, rows, row_bytes, stride_bytes);
  else if (all % 4 == 0) copy_rows_as<uint32_t>(to, from, rows, row_bytes, stride_bytes);
  else if (all % 2 == 0) copy_rows_as<uint16_t>(to, from, rows, row_bytes, stride_bytes);
  else copy_rows_as<uint8_t>(to, from, rows, row_bytes, stride_bytes);
}

}  // namespace trireme::cuda
