#include "tensor/cuda/elementwise.h"

#include <cstring>

#include "base/error.h"
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

struct PutWords {
  uint32_t word[kPutBytes / 4];  // the arguments of a launch are at most 4096 bytes
};
__global__ void __launch_bounds__(256) put_kernel(uint32_t* to, const __grid_constant__ PutWords words, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += 256) to[i] = words.word[i];
}

}  // namespace

void add_into(void* sum, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch_flat<kVector<T>>("add_into", AddInto<T>{static_cast<T*>(sum), static_cast<const T*>(x)}, n,
                            aligned16(sum, x));
  });
}

void put_bytes(void* to, const void* from, size_t num_bytes) {
  TRIREME_ASSERT(num_bytes <= kPutBytes && num_bytes % 4 == 0 && reinterpret_cast<uintptr_t>(to) % 4 == 0);
  PutWords words{};
  std::memcpy(words.word, from, num_bytes);
  const int count = static_cast<int>(num_bytes / 4);
  launch("put_bytes", put_kernel, {dim3(count > 0), dim3(256)}, static_cast<uint32_t*>(to), words, count);
}

}  // namespace trireme::cuda
