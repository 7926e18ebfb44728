#include "tensor/cuda/elementwise.h"

#include "tensor/cuda/flat.cuh"

namespace trireme::cuda {
namespace {

template <class T>
struct AddInto {
  static constexpr int kUnroll = 4;
  T* sum;
  const T* x;

  template <int N>
  struct State {
    Packed<T, N> sum, x;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const {
    s.sum = load_packed<N>(sum + i);
    s.x = load_packed<N>(x + i);
  }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    float a[N], b[N];
    unpack(a, s.sum);
    unpack(b, s.x);
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] += b[k];
    store_n<N>(sum + i, a);
  }
};

}  // namespace

void add_into(void* sum, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("add_into", AddInto<T>{static_cast<T*>(sum), static_cast<const T*>(x)}, n,
                            aligned16(sum, x));
  });
}

}  // namespace trireme::cuda
