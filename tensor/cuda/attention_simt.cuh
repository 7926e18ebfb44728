// Attention by f32 multiply-adds: for f32 storage, and for head widths that the tensor-core kernels do not
// take. Tiles of 64 x 64 scores by 256 threads, each with 4 rows and 4 columns of them. A block computes the
// scores of all of head_dim and up to 128 columns ("a slice") of the result, so that any head_dim fits;
// beyond 128 the scores are computed once for each slice.
#pragma once

#include <cmath>

#include "tensor/cuda/attention_tile.cuh"

namespace trireme::cuda {

inline constexpr int kSimtTile = 64, kSimtThreads = 256, kSimtDepth = 32;
inline constexpr int kSimtStride = kSimtTile + 4;  // floats from row to row, still in 16-byte steps

// The block's shared memory.
template <int kGroups>
struct SimtMemory {
  float left[kSimtDepth * kSimtStride],
      right[kSimtDepth * kSimtStride];            // operands of scores: [element][row]
  float weights[kSimtTile * kSimtStride];         // left operand of the second product
  float values[kSimtTile * kSimtTile * kGroups];  // its right operand: [row][slice column]
};

// A thread's place: rows 4 ty .. +3 and columns 4 tx .. +3 (of each 64 of a slice).
struct SimtPlace {
  int me, ty, tx;
  __device__ __forceinline__ SimtPlace() : me(static_cast<int>(threadIdx.x)), ty(me / 16), tx(me % 16) {}
};

// sum += left^T right over `depth` rows of both.
template <int kGroups>
__device__ __forceinline__ void simt_multiply(float (&sum)[4][4 * kGroups], const float* left,
                                              const float* right, int right_stride, int depth,
                                              const SimtPlace& at) {
#pragma unroll 4
  for (int k = 0; k < depth; ++k) {
    const float4 l = *reinterpret_cast<const float4*>(left + k * kSimtStride + at.ty * 4);
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      const float4 r = *reinterpret_cast<const float4*>(right + k * right_stride + c * kSimtTile + at.tx * 4);
      const float rows[4] = {l.x, l.y, l.z, l.w}, columns[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][c * 4 + j] += rows[i] * columns[j];
    }
  }
}

// s[i][j] = left row 4 ty + i . right row 4 tx + j. Rows past `lefts` and `rights` count as zero.
template <int kGroups, class LeftAt, class RightAt>
__device__ __forceinline__ void simt_scores(float (&s)[4][4], SimtMemory<kGroups>& memory, int dim, int lefts,
                                            LeftAt left_at, int rights, RightAt right_at,
                                            const SimtPlace& at) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) s[i][j] = 0;
  const int column = at.me % kSimtDepth;
  for (int d0 = 0; d0 < dim; d0 += kSimtDepth) {
    __syncthreads();
    const int d = d0 + column;
#pragma unroll 4
    for (int row = at.me / kSimtDepth; row < kSimtTile; row += kSimtThreads / kSimtDepth) {
      memory.left[column * kSimtStride + row] = d < dim && row < lefts ? widen(left_at(row)[d]) : 0.0f;
      memory.right[column * kSimtStride + row] = d < dim && row < rights ? widen(right_at(row)[d]) : 0.0f;
    }
    __syncthreads();
    simt_multiply<1>(s, memory.left, memory.right, kSimtStride, kSimtDepth, at);
  }
}

// memory.values <- columns [first, first + 64 kGroups) of rows row_at(0 .. valid - 1), zeros elsewhere.
template <int kGroups, class RowAt>
__device__ __forceinline__ void simt_load_values(SimtMemory<kGroups>& memory, int dim, int first, int valid,
                                                 RowAt row_at, const SimtPlace& at) {
  constexpr int kWidth = kSimtTile * kGroups;
  const int column = at.me % kWidth, d = first + column;
#pragma unroll 4
  for (int row = at.me / kWidth; row < kSimtTile; row += kSimtThreads / kWidth)
    memory.values[row * kWidth + column] = d < dim && row < valid ? widen(row_at(row)[d]) : 0.0f;
}

// Calls fn(i, c) for each element (row i of the thread's 4, register c) that is inside, with its column of
// the head.
template <int kGroups, class Fn>
__device__ __forceinline__ void simt_each(int dim, int first, int valid, const SimtPlace& at, Fn fn) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int c = 0; c < 4 * kGroups; ++c) {
      const int row = at.ty * 4 + i, d = first + c / 4 * kSimtTile + at.tx * 4 + c % 4;
      if (row < valid && d < dim) fn(i, c, row, d);
    }
}

// Whether each of a row's 4 weights survives dropout.
__device__ __forceinline__ void simt_keep(bool (&keep)[4], const AttentionCall& call, uint64_t seed,
                                          int64_t row_key, int key) {
  uint32_t word[4];
  philox_words(word, seed, call.stream, static_cast<uint64_t>(row_key), static_cast<uint32_t>(key / 4));
#pragma unroll
  for (int j = 0; j < 4; ++j) keep[j] = word[j] >= call.drop_threshold;
}

inline int64_t simt_slices(int64_t head_dim, int groups) {
  return (head_dim + kSimtTile * groups - 1) / (kSimtTile * groups);
}

// As forward_kernel, with kSimtTile queries in a block. blockIdx.x = place * slices + slice.
template <class T, int kGroups, class Source>
__global__ void __launch_bounds__(kSimtThreads)
    simt_forward_kernel(AttentionCall call, Source source, int slices, T* out, float* lse) {
  const int slice = static_cast<int>(blockIdx.x) % slices, first_column = slice * kSimtTile * kGroups;
  const BlockPlace work(call, call.q_heads, call.causal, static_cast<int>(blockIdx.x) / slices);
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), first = work.block * kSimtTile;
  if (first >= rows || source.skips(call, rows)) return;
  const int valid = min(kSimtTile, rows - first), position = source.past(call, work.segment) + first;
  const int keys = call.causal ? position + valid : position - first + rows, dim = call.head_dim;
  const auto from = source.open(call, work.segment, work.head / call.group);
  const T* queries =
      static_cast<const T*>(call.qkv) + (begin + first) * call.width() + call.query_column(work.head);
  auto& memory = *reinterpret_cast<SimtMemory<kGroups>*>(shared_memory());
  const SimtPlace at;

  const uint64_t seed = call.row_keys ? call.head_seeds[work.head] : 0;
  float sum[4][4 * kGroups] = {}, top[4], total[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) top[i] = -INFINITY;
  for (int key0 = 0; key0 < keys; key0 += kSimtTile) {
    const int n = min(kSimtTile, keys - key0);
    float s[4][4];
    simt_scores(
        s, memory, dim, valid, [&](int r) { return queries + r * call.width(); }, n,
        [&](int r) { return from.key(key0 + r); }, at);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = position + at.ty * 4 + i, key = key0 + at.tx * 4;
      float highest = -INFINITY;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] =
            key + j >= keys || (call.causal && key + j > query) ? -INFINITY : s[i][j] * call.scale_log2e;
        highest = fmaxf(highest, s[i][j]);
      }
#pragma unroll
      for (int with = 1; with < 16; with *= 2) highest = fmaxf(highest, swap_lanes(highest, with));
      const float new_top = fmaxf(top[i], highest), rescale = exp2f(top[i] - new_top);
      top[i] = new_top;
      total[i] *= rescale;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = exp2f(s[i][j] - new_top);
        total[i] += s[i][j];
      }
      if (call.row_keys) {
        bool keep[4];
        const int row = at.ty * 4 + i;
        simt_keep(keep, call, seed, row < valid ? call.row_keys[begin + first + row] : 0, key);
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][j] = keep[j] ? s[i][j] : 0.0f;
      }
#pragma unroll
      for (int c = 0; c < 4 * kGroups; ++c) sum[i][c] *= rescale;
    }
    // The second product of the tile before is behind the barriers of simt_scores.
#pragma unroll
    for (int j = 0; j < 4; ++j)
      *reinterpret_cast<float4*>(memory.weights + (at.tx * 4 + j) * kSimtStride + at.ty * 4) =
          float4{s[0][j], s[1][j], s[2][j], s[3][j]};
    simt_load_values(
        memory, dim, first_column, n, [&](int r) { return from.value(key0 + r); }, at);
    __syncthreads();
    simt_multiply<kGroups>(sum, memory.weights, memory.values, kSimtTile * kGroups, n, at);
  }

#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int with = 1; with < 16; with *= 2) total[i] += swap_lanes(total[i], with);
    const int row = at.ty * 4 + i;
    if (lse && slice == 0 && at.tx == 0 && row < valid)
      lse[(begin + first + row) * call.q_heads + work.head] = top[i] + log2f(total[i]);
  }
  T* to = out + (begin + first) * call.out_width() + call.query_column(work.head);
  simt_each<kGroups>(dim, first_column, valid, at, [&](int i, int c, int row, int d) {
    to[row * call.out_width() + d] = narrow<T>(sum[i][c] * (call.keep_scale / total[i]));
  });
}

// Calls fn with the number of 64-column groups in a slice.
template <class Fn>
void with_simt_groups(int64_t head_dim, Fn&& fn) {
  if (head_dim <= 64) return fn(std::integral_constant<int, 1>());
  fn(std::integral_constant<int, 2>());
}

}  // namespace trireme::cuda
