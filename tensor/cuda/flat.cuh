// Kernels over flat arrays, where element i of what is written depends on element i of what is read. An Op is a value
// of pointers and scalars with
//   static constexpr int kUnroll                                vectors that a thread has in flight at once
//   template <int N> struct State                               what is read for N elements, still packed
//   template <int N> void load(State<N>&, int64_t i) const      reads elements [i, i + N)
//   template <int N> void finish(const State<N>&, int64_t i) const   computes and writes them
// Reading all before writing any lets the loads overlap, also where the compiler cannot know that the arrays do not.
#pragma once

#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"

namespace trireme::cuda {

constexpr int kFlatThreads = 256;

// Elements that one block covers.
template <int N, class Op>
constexpr int64_t kFlatSpan = int64_t{kFlatThreads} * N * Op::kUnroll;

// The share of block number `block` of an array of n elements. Its last n % N elements go one by one to the threads of
// the block that covers its end.
template <int N, class Op>
__device__ inline void flat_block(const Op& op, int64_t n, int64_t block) {
  constexpr int64_t kStep = int64_t{kFlatThreads} * N;
  const int64_t begin = block * kFlatSpan<N, Op>, first = begin + threadIdx.x * N;
  typename Op::template State<N> state[Op::kUnroll];
#pragma unroll
  for (int u = 0; u < Op::kUnroll; ++u)
    if (first + u * kStep + N <= n) op.load(state[u], first + u * kStep);
#pragma unroll
  for (int u = 0; u < Op::kUnroll; ++u)
    if (first + u * kStep + N <= n) op.finish(state[u], first + u * kStep);
  if constexpr (N > 1) {
    const int64_t rest = n / N * N + threadIdx.x;
    if (n - begin <= kFlatSpan<N, Op> && rest < n) {
      typename Op::template State<1> one;
      op.load(one, rest);
      op.finish(one, rest);
    }
  }
}

template <int N, class Op>
__global__ void __launch_bounds__(kFlatThreads) flat_kernel(Op op, int64_t n) {
  flat_block<N>(op, n, blockIdx.x);
}

// `vector`: every array may be read and written N elements at a time.
template <int N, class Op>
void launch_flat(const char* name, const Op& op, int64_t n, bool vector) {
  if (vector)
    launch(name, flat_kernel<N, Op>, {dim3(static_cast<unsigned>(divide_up(n, kFlatSpan<N, Op>))), dim3(kFlatThreads)},
           op, n);
  else
    launch(name, flat_kernel<1, Op>, {dim3(static_cast<unsigned>(divide_up(n, kFlatSpan<1, Op>))), dim3(kFlatThreads)},
           op, n);
}

}  // namespace trireme::cuda
