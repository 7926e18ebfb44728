#include "tensor/cuda/norm.h"

#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/partials.h"

namespace trireme::cuda {
namespace {

// A row belongs to blockDim.x threads, a multiple of 32; blockDim.y rows share a block. A thread has elements
// c = (s blockDim.x + threadIdx.x) N + k of its row, s < kSlots, k < N, and keeps them in registers between the passes
// over the row. kSlots 0: as many as the row needs, read from memory again in each pass.
constexpr int kMaxThreads = 512, kMaxWarps = kMaxThreads / kWarp;
constexpr int kForwardElements = 16;  // kSlots N
constexpr int kBackwardElements = 8, kPlainBackwardElements = 16;

// A sum over the threads of a row. `shared` has kMaxWarps elements, which may be used again after a __syncthreads().
// Called by all threads of the block.
template <class V>
__device__ inline V row_sum(V v, V* shared) {
  v = warp_sum(v);
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return v;
  V* mine = shared + threadIdx.y * warps;
  if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = v;
  __syncthreads();
  V sum = mine[0];
  for (int w = 1; w < warps; ++w) sum += mine[w];
  return sum;
}

// Two at once.
struct Pair {
  float a, b;
};
__device__ inline Pair row_sum(Pair v, Pair* shared) {
  v = {warp_sum(v.a), warp_sum(v.b)};
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return v;
  Pair* mine = shared + threadIdx.y * warps;
  if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = v;
  __syncthreads();
  Pair sum = mine[0];
  for (int w = 1; w < warps; ++w) sum = {sum.a + mine[w].a, sum.b + mine[w].b};
  return sum;
}

// Elements [c, c + N) of what is normalised: x, or residual + dropout(x + bias) rounded as it is stored. Backward sees
// the same values, and so would an unfused norm.
template <class T, int N>
__device__ inline void finish_input(float (&v)[N], const Packed<T, N>& x, const Packed<T, N>& residual,
                                    const cpu::NormForward& a, int64_t row, int64_t c) {
  unpack(v, x);
  if (!a.residual) return;
  if (a.bias) {
    float bias[N];
    load_n<N>(bias, static_cast<const T*>(a.bias) + c);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] += bias[k];
  }
  apply_mask(v, a.mask, row, c);
  float base[N];
  unpack(base, residual);
#pragma unroll
  for (int k = 0; k < N; ++k) v[k] = rounded<T>(v[k] + base[k]);
  store_n<N>(static_cast<T*>(a.sum) + row * a.dim + c, v);
}

template <class T, int N, bool kCentered>
__device__ inline void store_normed(const cpu::NormForward& a, int64_t row, int64_t c, const float (&v)[N], float mean,
                                    float rstd) {
  float weight[N], y[N];
  load_n<N>(weight, static_cast<const T*>(a.weight) + c);
  if constexpr (kCentered) {
    float bias[N];
    load_n<N>(bias, static_cast<const T*>(a.norm_bias) + c);
#pragma unroll
    for (int k = 0; k < N; ++k) y[k] = (v[k] - mean) * rstd * weight[k] + bias[k];
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) y[k] = v[k] * rstd * weight[k];
  }
  store_n<N>(static_cast<T*>(a.normed) + row * a.dim + c, y);
}

// Mean, centered squares (not E[x^2] - mean^2, which would cancel), output.
template <class T, int N, int kSlots, bool kCentered>
__global__ void __launch_bounds__(kMaxThreads) norm_forward_kernel(const __grid_constant__ cpu::NormForward a) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y, dim = a.dim;
  const bool active = row < a.rows;  // the others are here for the barriers
  const int64_t first = threadIdx.x * N, step = int64_t{blockDim.x} * N, end = active ? dim : 0;
  const T* x = static_cast<const T*>(a.x) + row * dim;
  const T* residual = static_cast<const T*>(a.residual) + (a.residual ? row * dim : 0);
  __shared__ float sums[kMaxWarps], squares[kMaxWarps];
  float sum = 0, square = 0, mean = 0;
  if constexpr (kSlots > 0) {
    Packed<T, N> packed[kSlots], base[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int64_t c = first + s * step;
      if (c >= end) continue;
      packed[s] = load_packed<N>(x + c);
      if (a.residual) base[s] = load_packed<N>(residual + c);
    }
    float v[kSlots][N];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int64_t c = first + s * step;
      if (c >= end) continue;
      finish_input<T>(v[s], packed[s], base[s], a, row, c);
#pragma unroll
      for (int k = 0; k < N; ++k) sum += v[s][k];
    }
    if constexpr (kCentered) mean = row_sum(sum, sums) / static_cast<float>(dim);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (first + s * step >= end) continue;
#pragma unroll
      for (int k = 0; k < N; ++k) square += (v[s][k] - mean) * (v[s][k] - mean);
    }
    const float rstd = 1.0f / sqrtf(row_sum(square, squares) / static_cast<float>(dim) + a.eps);
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      if (first + s * step < end) store_normed<T, N, kCentered>(a, row, first + s * step, v[s], mean, rstd);
    square = rstd;
  } else {
    const T* input = a.residual ? static_cast<const T*>(a.sum) + row * dim : x;  // what this thread itself wrote
    float v[N];
    for (int64_t c = first; c < end; c += step) {
      Packed<T, N> base;
      if (a.residual) base = load_packed<N>(residual + c);
      finish_input<T>(v, load_packed<N>(x + c), base, a, row, c);
#pragma unroll
      for (int k = 0; k < N; ++k) sum += v[k];
    }
    if constexpr (kCentered) mean = row_sum(sum, sums) / static_cast<float>(dim);
    for (int64_t c = first; c < end; c += step) {
      load_n<N>(v, input + c);
#pragma unroll
      for (int k = 0; k < N; ++k) square += (v[k] - mean) * (v[k] - mean);
    }
    const float rstd = 1.0f / sqrtf(row_sum(square, squares) / static_cast<float>(dim) + a.eps);
    for (int64_t c = first; c < end; c += step) {
      load_n<N>(v, input + c);
      store_normed<T, N, kCentered>(a, row, c, v, mean, rstd);
    }
    square = rstd;
  }
  if (!active || threadIdx.x != 0) return;
  if (kCentered && a.mean) a.mean[row] = mean;
  if (a.rstd) a.rstd[row] = square;
}

// What one row gives at N columns, and what it takes: read, still packed.
template <class T, int N>
struct RowPiece {
  Packed<T, N> x, dy, dsum;
};

template <class T, int N>
__device__ inline void load_piece(RowPiece<T, N>& p, const cpu::NormBackward& a, int64_t at) {
  p.x = load_packed<N>(static_cast<const T*>(a.input) + at);
  p.dy = load_packed<N>(static_cast<const T*>(a.dnormed) + at);
  if (a.dsum) p.dsum = load_packed<N>(static_cast<const T*>(a.dsum) + at);
}

struct RowStats {
  float mean, rstd;
};

// n = (x - mean) rstd and g = dy weight. Adds dy n and dy to the column sums, g and g n to the row's.
template <class T, int N, bool kCentered>
__device__ inline void add_piece(const RowPiece<T, N>& p, const float (&weight)[N], RowStats row, float (&dweight)[N],
                                 float (&dnorm_bias)[N], Pair& sums) {
  float x[N], dy[N];
  unpack(x, p.x);
  unpack(dy, p.dy);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float n = (x[k] - row.mean) * row.rstd, g = dy[k] * weight[k];
    dweight[k] += dy[k] * n;
    if constexpr (kCentered) {
      dnorm_bias[k] += dy[k];
      sums.a += g;
    }
    sums.b += g * n;
  }
}

// dinput = dsum + rstd (g - avg(g) - n avg(g n)), without avg(g) for RMSNorm; dx = mask(dinput), of which dbias is the
// column sum. means: avg(g), avg(g n). kDrops: dx or dbias may be wanted.
template <class T, int N, bool kDrops>
__device__ inline void finish_piece(const RowPiece<T, N>& p, const cpu::NormBackward& a, const float (&weight)[N],
                                    RowStats stats, Pair means, int64_t row, int64_t c, float (&dbias)[N]) {
  float x[N], dy[N], d[N];
  unpack(x, p.x);
  unpack(dy, p.dy);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float n = (x[k] - stats.mean) * stats.rstd, g = dy[k] * weight[k];
    d[k] = stats.rstd * (g - means.a - n * means.b);
  }
  if (a.dsum) {
    float dsum[N];
    unpack(dsum, p.dsum);
#pragma unroll
    for (int k = 0; k < N; ++k) d[k] += dsum[k];
  }
  store_n<N>(static_cast<T*>(a.dinput) + row * a.dim + c, d);
  if constexpr (kDrops) {
    if (!a.dx && !a.dbias) return;
#pragma unroll
    for (int k = 0; k < N; ++k) d[k] = rounded<T>(d[k]);  // the gradient of the sum is what was stored
    apply_mask(d, a.mask, row, c);
#pragma unroll
    for (int k = 0; k < N; ++k) dbias[k] += d[k];
    if (a.dx) store_n<N>(static_cast<T*>(a.dx) + row * a.dim + c, d);
  }
}

template <bool kCentered>
__device__ inline RowStats stats_of(const cpu::NormBackward& a, int64_t row) {
  return {kCentered ? a.mean[row] : 0.0f, a.rstd[row]};
}

// A block of threads has one block of rows (tensor/cpu/row_blocks.h), blockDim.y of them at once, and keeps the column
// sums in registers. With few elements a thread the next rows are on their way while these are summed.
template <class T, int N, int kSlots, bool kCentered, bool kDrops>
__global__ void __launch_bounds__(kMaxThreads) norm_backward_kernel(const __grid_constant__ cpu::NormBackward a) {
  constexpr bool kAhead = kSlots * N <= kBackwardElements;
  const int64_t dim = a.dim, block_rows = cpu::rows_per_block(a.rows), begin = blockIdx.x * block_rows;
  const int64_t end = begin + block_rows < a.rows ? begin + block_rows : a.rows;
  const int64_t first = threadIdx.x * N, step = int64_t{blockDim.x} * N;
  const float per_element = static_cast<float>(dim);
  const T* weights = static_cast<const T*>(a.weight);
  float dweight[kSlots][N] = {}, dnorm_bias[kSlots][N] = {}, dbias[kSlots][N] = {};
  RowPiece<T, N> piece[kSlots], next[kSlots];
  RowStats stats = {}, next_stats = {};
  const auto fetch = [&](RowPiece<T, N>(&into)[kSlots], RowStats& stats_into, int64_t row) {
    if (row >= end) return;
    stats_into = stats_of<kCentered>(a, row);
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      if (first + s * step < dim) load_piece(into[s], a, row * dim + first + s * step);
  };
  if constexpr (kAhead) fetch(next, next_stats, begin + threadIdx.y);
  // By turns, so that one barrier a row is enough.
  __shared__ Pair shared[2][kMaxWarps];
  int turn = 0;
  for (int64_t base = begin; base < end; base += blockDim.y, turn ^= 1) {
    const int64_t row = base + threadIdx.y;
    const bool active = row < end;
    if constexpr (kAhead) {
#pragma unroll
      for (int s = 0; s < kSlots; ++s) piece[s] = next[s];
      stats = next_stats;
      fetch(next, next_stats, row + blockDim.y);
    } else {
      fetch(piece, stats, row);
    }
    Pair sums = {0, 0};
    float weight[N];  // from the first cache after the first row
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (!active || first + s * step >= dim) continue;
      load_n<N>(weight, weights + first + s * step);
      add_piece<T, N, kCentered>(piece[s], weight, stats, dweight[s], dnorm_bias[s], sums);
    }
    sums = row_sum(sums, shared[turn]);
    const Pair means = {sums.a / per_element, sums.b / per_element};
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (!active || first + s * step >= dim) continue;
      load_n<N>(weight, weights + first + s * step);
      finish_piece<T, N, kDrops>(piece[s], a, weight, stats, means, row, first + s * step, dbias[s]);
    }
  }

  // The block's sums: those of its rows in x, added in order.
  __shared__ float gathered[kMaxThreads * kBackwardElements];
  const auto give = [&](float (&sum)[kSlots][N], int which) {
    if (blockDim.y > 1) {  // then kSlots N is kBackwardElements
      float* mine = gathered + (threadIdx.y * blockDim.x + threadIdx.x) * (kSlots * N);
      __syncthreads();
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
#pragma unroll
        for (int k = 0; k < N; ++k) mine[s * N + k] = sum[s][k];
      __syncthreads();
      if (threadIdx.y != 0) return;
      for (int y = 1; y < static_cast<int>(blockDim.y); ++y)
#pragma unroll
        for (int s = 0; s < kSlots; ++s)
#pragma unroll
          for (int k = 0; k < N; ++k) sum[s][k] += mine[y * blockDim.x * (kSlots * N) + s * N + k];
    }
    float* out = a.partial + (int64_t{blockIdx.x} * 3 + which) * dim;
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
#pragma unroll
      for (int k = 0; k < N; ++k)
        if (first + s * step < dim) out[first + s * step + k] = sum[s][k];
  };
  give(dweight, 0);
  if constexpr (kCentered) give(dnorm_bias, 1);
  if (kDrops && a.dbias) give(dbias, 2);
}

// Rows of any width: each row is read twice, and the column sums are in `partial`, each element of which one thread
// has.
template <class T, int N, bool kCentered>
__global__ void __launch_bounds__(kMaxThreads) wide_norm_backward_kernel(const __grid_constant__ cpu::NormBackward a) {
  const int64_t dim = a.dim, block_rows = cpu::rows_per_block(a.rows), begin = blockIdx.x * block_rows;
  const int64_t end = begin + block_rows < a.rows ? begin + block_rows : a.rows;
  const int64_t first = threadIdx.x * N, step = int64_t{blockDim.x} * N;
  float* partial = a.partial + blockIdx.x * 3 * dim;
  const T* weights = static_cast<const T*>(a.weight);
  __shared__ Pair shared[2][kMaxWarps];
  for (int64_t c = first; c < dim; c += step)
#pragma unroll
    for (int k = 0; k < N; ++k) partial[c + k] = partial[dim + c + k] = partial[2 * dim + c + k] = 0;
  int turn = 0;
  for (int64_t row = begin; row < end; ++row, turn ^= 1) {
    const RowStats stats = stats_of<kCentered>(a, row);
    RowPiece<T, N> piece;
    float weight[N];
    Pair sums = {0, 0};
    for (int64_t c = first; c < dim; c += step) {
      float dweight[N] = {}, dnorm_bias[N] = {};
      load_piece(piece, a, row * dim + c);
      load_n<N>(weight, weights + c);
      add_piece<T, N, kCentered>(piece, weight, stats, dweight, dnorm_bias, sums);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        partial[c + k] += dweight[k];
        if constexpr (kCentered) partial[dim + c + k] += dnorm_bias[k];
      }
    }
    sums = row_sum(sums, shared[turn]);
    const Pair means = {sums.a / static_cast<float>(dim), sums.b / static_cast<float>(dim)};
    for (int64_t c = first; c < dim; c += step) {
      float dbias[N] = {};
      load_piece(piece, a, row * dim + c);
      load_n<N>(weight, weights + c);
      finish_piece<T, N, true>(piece, a, weight, stats, means, row, c, dbias);
      if (a.dbias)
#pragma unroll
        for (int k = 0; k < N; ++k) partial[2 * dim + c + k] += dbias[k];
    }
  }
}

// Threads along a row where each has up to `elements` of it, and rows so that a block has about 256 threads, or as many
// as the row needs; no more rows than there are.
dim3 block_shape(int64_t dim, int elements, int64_t rows) {
  const int64_t along = round_up(divide_up(dim, elements), kWarp);
  const int64_t fit = along >= 256 ? 1 : 256 / along;
  return dim3(static_cast<unsigned>(along), static_cast<unsigned>(fit < rows ? fit : rows));
}

// Without vectors, which are for widths that no model has, only the kernels for rows of any width are made.
template <class T, int N, bool kCentered>
void forward(const cpu::NormForward& a) {
  if (a.rows == 0) return;
  dim3 block(static_cast<unsigned>(a.dim < kMaxThreads ? round_up(a.dim, kWarp) : kMaxThreads));
  auto kernel = norm_forward_kernel<T, N, 0, kCentered>;
  if constexpr (N > 1) {
    if (a.dim <= kMaxThreads * kForwardElements) {
      block = block_shape(a.dim, kForwardElements, a.rows);
      kernel = norm_forward_kernel<T, N, kForwardElements / N, kCentered>;
    }
  }
  launch("norm_forward", kernel, {dim3(static_cast<unsigned>(divide_up(a.rows, block.y))), block}, a);
}

template <class T, int N, bool kCentered>
void backward(const cpu::NormBackward& a) {
  if (a.rows == 0) return;
  dim3 block(static_cast<unsigned>(a.dim < kMaxThreads ? round_up(a.dim, kWarp) : kMaxThreads));
  auto kernel = wide_norm_backward_kernel<T, N, kCentered>;
  if constexpr (N > 1) {
    if (a.dim <= kMaxThreads * kBackwardElements) {
      block = block_shape(a.dim, kBackwardElements, cpu::rows_per_block(a.rows));
      kernel = norm_backward_kernel<T, N, kBackwardElements / N, kCentered, true>;
    } else if (sizeof(T) == 2 && a.dim <= kMaxThreads * kPlainBackwardElements && !a.dx && !a.dbias) {
      if constexpr (sizeof(T) == 2) {
        block = block_shape(a.dim, kPlainBackwardElements, 1);
        kernel = norm_backward_kernel<T, N, kPlainBackwardElements / N, kCentered, false>;
      }
    }
  }
  launch("norm_backward", kernel, {dim3(static_cast<unsigned>(cpu::column_partials(a.rows))), block}, a);
}

}  // namespace

void norm_forward(const cpu::NormForward& a) {
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    constexpr int kN = kVector<T>;
    const bool vector = a.dim % kN == 0 && aligned16(a.x, a.residual, a.bias, a.sum, a.weight, a.norm_bias, a.normed);
    if (a.centered) vector ? forward<T, kN, true>(a) : forward<T, 1, true>(a);
    else vector ? forward<T, kN, false>(a) : forward<T, 1, false>(a);
  });
}

void norm_backward(const cpu::NormBackward& a) {
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    constexpr int kN = kVector<T>;
    const bool vector = a.dim % kN == 0 && aligned16(a.input, a.weight, a.dnormed, a.dsum, a.dinput, a.dx);
    if (a.centered) vector ? backward<T, kN, true>(a) : backward<T, 1, true>(a);
    else vector ? backward<T, kN, false>(a) : backward<T, 1, false>(a);
  });
  add_three_partials(a.dweight, a.centered ? a.dnorm_bias : nullptr, a.dbias, a.partial, cpu::column_partials(a.rows),
                     a.dim);
}

}  // namespace trireme::cuda
