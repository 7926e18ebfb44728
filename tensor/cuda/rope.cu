#include "tensor/cuda/rope.h"

#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"

namespace trireme::cuda {
namespace {

// The threads in x share a row. Its pieces are first N pairs (i, i + half) of a head each, then N columns that are
// copied.
template <class T, int N>
__global__ void __launch_bounds__(256)
    rope_kernel(const T* x, T* y, int64_t rows, int width, int heads, int half, const int32_t* positions,
                const float* cos, const float* sin, float sign) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int per_head = half / N, turned = heads * per_head, pieces = turned + (width - 2 * heads * half) / N;
  const T* in = x + row * width;
  T* out = y + row * width;
  const int64_t angles = int64_t{positions[row]} * half;
  for (int p = threadIdx.x; p < pieces; p += blockDim.x) {
    if (p >= turned) {
      const int c = 2 * heads * half + (p - turned) * N;
      store_packed<N>(out + c, load_packed<N>(in + c));
      continue;
    }
    const int head = p / per_head, i = (p - head * per_head) * N, at = 2 * head * half + i;
    float a[N], b[N], c[N], s[N], first[N], second[N];
    load_n<N>(a, in + at);
    load_n<N>(b, in + at + half);
    load_n<N>(c, cos + angles + i);
    load_n<N>(s, sin + angles + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float turn = sign * s[k];
      first[k] = a[k] * c[k] - b[k] * turn;
      second[k] = b[k] * c[k] + a[k] * turn;
    }
    store_n<N>(out + at, first);
    store_n<N>(out + at + half, second);
  }
}

}  // namespace

void rope(const void* x, void* y, DType dtype, int64_t rows, int64_t width, int64_t heads, int64_t head_dim,
          const int32_t* positions, const float* cos, const float* sin, float sign) {
  const int64_t half = head_dim / 2;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    constexpr int kN = kVector<T>;
    const bool vector = half % kN == 0 && width % kN == 0 && aligned16(x, y, cos, sin);
    const int64_t pieces = (width - heads * half) / (vector ? kN : 1);
    const dim3 block = row_shape(pieces);
    launch("rope", vector ? rope_kernel<T, kN> : rope_kernel<T, 1>,
           {dim3(static_cast<unsigned>(divide_up(rows, block.y))), block}, static_cast<const T*>(x), static_cast<T*>(y),
           rows, static_cast<int>(width), static_cast<int>(heads), static_cast<int>(half), positions, cos, sin, sign);
  });
}

}  // namespace trireme::cuda
