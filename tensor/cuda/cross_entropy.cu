#include "tensor/cuda/cross_entropy.h"

#include "tensor/cpu/cross_entropy.h"
#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"

namespace trireme::cuda {
namespace {

using cpu::kIgnoredLabel;

constexpr int kThreads = 512;  // of a row
constexpr int kWarps = kThreads / kWarp;
constexpr int kUnroll = 4;     // vectors of a thread in flight
constexpr float kLowest = -__builtin_inff();

template <int N>
__device__ constexpr int length(const float (&)[N]) { return N; }

// Elements before the first 16-byte boundary. Rows of an odd vocabulary begin anywhere.
template <class T>
__device__ inline int64_t head_of(const T* row, int64_t n) {
  const int64_t head = static_cast<int64_t>((16 - (reinterpret_cast<uintptr_t>(row) & 15)) & 15) / sizeof(T);
  return head < n ? head : n;
}

// Calls fn(values, first index) for all of a row's elements, `values` being a float[kVector<T>] or a float[1]; for one
// thread with ascending indices. fn must not write to memory.
template <class T, class Fn>
__device__ inline void for_row(const T* row, int64_t n, Fn&& fn) {
  constexpr int N = kVector<T>;
  const int64_t head = head_of(row, n), vectors = (n - head) / N;
  float one[1], v[N];
  if (threadIdx.x < head) {
    one[0] = load(row + threadIdx.x);
    fn(one, static_cast<int64_t>(threadIdx.x));
  }
  int64_t i = threadIdx.x;
  for (; i + (kUnroll - 1) * kThreads < vectors; i += kUnroll * kThreads) {
    Packed<T, N> packed[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) packed[u] = load_packed<N>(row + head + (i + u * kThreads) * N);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      unpack(v, packed[u]);
      fn(v, head + (i + u * kThreads) * N);
    }
  }
  for (; i < vectors; i += kThreads) {
    load_n<N>(v, row + head + i * N);
    fn(v, head + i * N);
  }
  const int64_t rest = head + vectors * N + threadIdx.x;
  if (rest < n) {
    one[0] = load(row + rest);
    fn(one, rest);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) row_max_kernel(const T* logits, int64_t columns, int64_t valid, float* maximum) {
  float best = kLowest;
  for_row(logits + int64_t{blockIdx.x} * columns, valid, [&](const auto& v, int64_t) {
#pragma unroll
    for (int k = 0; k < length(v); ++k) best = larger(best, v[k]);
  });
  __shared__ float shared[kWarps];
  best = block_max<kThreads>(best, shared);
  if (threadIdx.x == 0) maximum[blockIdx.x] = best;
}

// The larger value, of equal ones that with the smaller index.
struct Best {
  float value;
  int index;
};
__device__ inline Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}
__device__ inline Best warp_best(Best best) {
#pragma unroll
  for (int d = kWarp / 2; d; d /= 2) {
    const Best other{__shfl_xor_sync(kAllLanes, best.value, d), __shfl_xor_sync(kAllLanes, best.index, d)};
    best = better(best, other);
  }
  return best;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    row_argmax_kernel(const T* logits, int64_t columns, int64_t valid, float* maximum, int32_t* index) {
  constexpr int kNone = 0x7fffffff;
  Best best{kLowest, kNone};
  for_row(logits + int64_t{blockIdx.x} * columns, valid, [&](const auto& v, int64_t first) {
#pragma unroll
    for (int k = 0; k < length(v); ++k)
      if (v[k] > best.value) best = {v[k], static_cast<int>(first) + k};
  });
  __shared__ Best shared[kWarps];
  best = warp_best(best);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = best;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  best = warp_best(threadIdx.x < kWarps ? shared[threadIdx.x] : Best{kLowest, kNone});
  if (threadIdx.x != 0) return;
  maximum[blockIdx.x] = best.value;
  index[blockIdx.x] = best.index == kNone ? -1 : best.index;
}

// exp(x - shift) for x <= shift.
template <class T>
__device__ inline float exp_for(float x) {
  if constexpr (sizeof(T) == 2) return __expf(x);
  else return expf(x);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    row_sum_exp_and_target_kernel(const T* logits, int64_t columns, int64_t valid, const float* maximum,
                                  const int32_t* labels, int64_t vocab_start, float* sum_exp, float* target) {
  const int64_t row = blockIdx.x;
  const T* x = logits + row * columns;
  const float shift = maximum[row];
  float sum = 0;  // of a few hundred elements; the threads are added up in double
  for_row(x, valid, [&](const auto& v, int64_t) {
#pragma unroll
    for (int k = 0; k < length(v); ++k) sum += exp_for<T>(v[k] - shift);
  });
  __shared__ double shared[kWarps];
  const double total = block_sum<kThreads>(static_cast<double>(sum), shared);
  if (threadIdx.x != 0) return;
  sum_exp[row] = static_cast<float>(total);
  const int64_t label = labels[row] - vocab_start;
  target[row] = labels[row] >= 0 && label >= 0 && label < valid ? load(x + label) : 0.0f;
}

// kVectors: rows of logits and gradient begin at the same place within 16 bytes.
template <class T, bool kVectors>
__global__ void __launch_bounds__(kThreads)
    softmax_minus_onehot_kernel(const T* logits, T* gradient, int64_t columns, int64_t valid, const float* maximum,
                                const float* sum_exp, const int32_t* labels, int64_t vocab_start, float scale) {
  constexpr int N = kVector<T>;
  const int64_t row = blockIdx.x;
  const T* from = logits + row * columns;
  T* to = gradient + row * columns;
  const int64_t count = labels[row] == kIgnoredLabel ? 0 : valid;
  const int64_t label = labels[row] >= 0 ? labels[row] - vocab_start : -1;  // not in [0, count): on another rank
  const float shift = maximum[row], sum = sum_exp ? sum_exp[row] : 1.0f, factor = scale / sum;
  const auto value = [&](float x, int64_t i) {
    const float e = exp_for<T>(x - shift);
    return i == label ? (e / sum - 1.0f) * scale : e * factor;
  };
  const auto one = [&](int64_t i) { store(to + i, i < count ? value(load(from + i), i) : 0.0f); };
  if constexpr (!kVectors) {
    for (int64_t i = threadIdx.x; i < columns; i += kThreads) one(i);
    return;
  }
  const int64_t head = head_of(from, columns), vectors = (columns - head) / N;
  if (threadIdx.x < head) one(threadIdx.x);
  const auto finish = [&](const Packed<T, N>& packed, int64_t i) {
    float v[N];
    unpack(v, packed);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = value(v[k], i + k);
    store_n<N>(to + i, v);
  };
  int64_t i = threadIdx.x;
  // Whole vectors of what counts, several in flight.
  for (; head + (i + (kUnroll - 1) * kThreads + 1) * N <= count; i += kUnroll * kThreads) {
    Packed<T, N> packed[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) packed[u] = load_packed<N>(from + head + (i + u * kThreads) * N);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) finish(packed[u], head + (i + u * kThreads) * N);
  }
  for (; i < vectors; i += kThreads) {
    const int64_t at = head + i * N;
    if (at + N <= count) {
      finish(load_packed<N>(from + at), at);
    } else if (at >= count) {
      store_packed<N>(to + at, Packed<T, N>{});
    } else {
      for (int k = 0; k < N; ++k) one(at + k);
    }
  }
  const int64_t rest = head + vectors * N + threadIdx.x;
  if (rest < columns) one(rest);
}

// One pass with a running maximum a thread: what was summed before a larger element came is scaled down.
template <class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_forward_kernel(const T* logits, int64_t columns, const int32_t* labels, float* lse, double* loss,
                                 uint8_t* correct) {
  const int64_t row = blockIdx.x;
  const T* x = logits + row * columns;
  if (labels[row] == kIgnoredLabel) {  // the whole block
    if (threadIdx.x == 0) lse[row] = 0, loss[row] = 0, correct[row] = 0;
    return;
  }
  float maximum = kLowest, shift = 0, sum = 0;
  for_row(x, columns, [&](const auto& v, int64_t) {
    float m = kLowest;
#pragma unroll
    for (int k = 0; k < length(v); ++k) m = larger(m, v[k]);
    if (m > maximum) {
      // What was summed so far is 0 if there was no maximum yet, or NaN: it stays that.
      if (maximum != kLowest) sum *= exp_for<T>(maximum - m);
      maximum = shift = m;
    }
#pragma unroll
    for (int k = 0; k < length(v); ++k) sum += exp_for<T>(v[k] - shift);
  });
  __shared__ float maxima[kWarps];
  __shared__ double sums[kWarps];
  const float all = block_max<kThreads>(maximum, maxima);
  if (maximum != kLowest) sum *= exp_for<T>(maximum - all);
  const double total = block_sum<kThreads>(static_cast<double>(sum), sums);
  if (threadIdx.x != 0) return;
  const float target = load(x + labels[row]), base = all == kLowest ? 0.0f : all;
  const double log_sum = log(total);
  lse[row] = static_cast<float>(log_sum + base);
  loss[row] = log_sum + (static_cast<double>(base) - target);
  correct[row] = target == all;
}

struct Totals {
  double loss = 0;
  int tokens = 0, correct = 0;
};

// Adds up the threads' and adds that to totals.
__device__ inline void add_totals(double* totals, Totals mine) {
  __shared__ double losses[kWarps];
  __shared__ int counts[kWarps], hits[kWarps];
  const double loss = block_sum<kThreads>(mine.loss, losses);
  const int tokens = block_sum<kThreads>(mine.tokens, counts), correct = block_sum<kThreads>(mine.correct, hits);
  if (threadIdx.x != 0) return;
  totals[0] += loss;
  totals[1] += tokens;
  if (correct) totals[2] += correct;
}

__global__ void __launch_bounds__(kThreads)
    cross_entropy_totals_kernel(double* totals, const double* loss, const uint8_t* correct, const int32_t* labels,
                                int64_t rows) {
  Totals mine;
  for (int64_t r = threadIdx.x; r < rows; r += kThreads) {
    if (labels[r] == kIgnoredLabel) continue;
    mine.loss += loss[r];
    mine.tokens += 1;
    mine.correct += correct[r];
  }
  add_totals(totals, mine);
}

__global__ void __launch_bounds__(kThreads)
    vocabulary_totals_kernel(double* totals, const float* maximum, const float* sum_exp, const float* target,
                             const int32_t* labels, int64_t rows) {
  Totals mine;
  for (int64_t r = threadIdx.x; r < rows; r += kThreads) {
    if (labels[r] == kIgnoredLabel) continue;
    mine.loss += log(static_cast<double>(sum_exp[r])) + maximum[r] - target[r];
    mine.tokens += 1;
  }
  add_totals(totals, mine);
}

LaunchShape block_per_row(int64_t rows) { return {dim3(static_cast<unsigned>(rows)), dim3(kThreads)}; }

}  // namespace

void row_max(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("row_max", row_max_kernel<T>, block_per_row(rows), static_cast<const T*>(logits), columns, valid, maximum);
  });
}

void row_argmax(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum,
                int32_t* index) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("row_argmax", row_argmax_kernel<T>, block_per_row(rows), static_cast<const T*>(logits), columns, valid,
           maximum, index);
  });
}

void row_sum_exp_and_target(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                            const float* maximum, const int32_t* labels, int64_t vocab_start, float* sum_exp,
                            float* target) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("row_sum_exp_and_target", row_sum_exp_and_target_kernel<T>, block_per_row(rows),
           static_cast<const T*>(logits), columns, valid, maximum, labels, vocab_start, sum_exp, target);
  });
}

void softmax_minus_onehot(const void* logits, void* gradient, DType dtype, int64_t rows, int64_t columns,
                          int64_t valid, const float* maximum, const float* sum_exp, const int32_t* labels,
                          int64_t vocab_start, float scale) {
  const bool alike = ((reinterpret_cast<uintptr_t>(logits) ^ reinterpret_cast<uintptr_t>(gradient)) & 15) == 0;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("softmax_minus_onehot", alike ? softmax_minus_onehot_kernel<T, true> : softmax_minus_onehot_kernel<T, false>,
           block_per_row(rows), static_cast<const T*>(logits), static_cast<T*>(gradient), columns, valid, maximum,
           sum_exp, labels, vocab_start, scale);
  });
}

void cross_entropy_forward(const void* logits, DType dtype, int64_t rows, int64_t columns, const int32_t* labels,
                           float* lse, double* loss, uint8_t* correct) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    launch("cross_entropy_forward", cross_entropy_forward_kernel<T>, block_per_row(rows),
           static_cast<const T*>(logits), columns, labels, lse, loss, correct);
  });
}

void add_cross_entropy_totals(double* totals, const double* loss, const uint8_t* correct, const int32_t* labels,
                              int64_t rows) {
  launch("add_cross_entropy_totals", cross_entropy_totals_kernel, {dim3(1), dim3(kThreads)}, totals, loss, correct,
         labels, rows);
}

void add_vocabulary_totals(double* totals, const float* maximum, const float* sum_exp, const float* target,
                           const int32_t* labels, int64_t rows) {
  launch("add_vocabulary_totals", vocabulary_totals_kernel, {dim3(1), dim3(kThreads)}, totals, maximum, sum_exp, target,
         labels, rows);
}

}  // namespace trireme::cuda
