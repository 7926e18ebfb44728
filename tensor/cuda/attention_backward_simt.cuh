// The two backward passes of attention by f32 multiply-adds, on the tiles of attention_simt.cuh.
#pragma once

#include "tensor/cuda/attention_backward.cuh"
#include "tensor/cuda/attention_simt.cuh"

namespace trireme::cuda {

// Weights (times their dropout factors, in `p`) and score gradients of a tile with queries in rows, from the
// products of queries with keys in `p` and of output gradients with values in `d_s`. `query` and `key` are
// the tile's first ones, counted in the segment; rows past `queries` and columns past `keys` come out zero.
__device__ __forceinline__ void simt_gradients(float (&p)[4][4], float (&d_s)[4][4],
                                               const AttentionCall& call, const BackwardCall& grad, int head,
                                               uint64_t seed, int64_t first_row, int query, int queries,
                                               int key, int keys, const SimtPlace& at) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = at.ty * 4 + i, column = at.tx * 4;
    const bool here = row < queries;
    const int64_t sums = (first_row + row) * call.q_heads + head;
    const float lse = here ? grad.lse[sums] : 0.0f, delta = here ? grad.delta[sums] : 0.0f;
    bool keep[4] = {true, true, true, true};
    if (call.row_keys) simt_keep(keep, call, seed, here ? call.row_keys[first_row + row] : 0, key + column);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const bool seen = here && column + j < keys && (!call.causal || key + column + j <= query + row);
      const float weight = seen ? exp2f(p[i][j] * call.scale_log2e - lse) : 0.0f,
                  factor = keep[j] ? call.keep_scale : 0.0f;
      p[i][j] = weight * factor;
      d_s[i][j] = weight * (d_s[i][j] * factor - delta);
    }
  }
}

// blockIdx.x = place * slices + slice, as in simt_forward_kernel.
template <class T, int kGroups>
__global__ void __launch_bounds__(kSimtThreads)
    simt_backward_queries_kernel(AttentionCall call, BackwardCall grad, int slices) {
  const int first_column = static_cast<int>(blockIdx.x) % slices * kSimtTile * kGroups;
  const BlockPlace work(call, call.q_heads, call.causal, static_cast<int>(blockIdx.x) / slices);
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), position = work.block * kSimtTile;
  if (position >= rows) return;
  const int valid = min(kSimtTile, rows - position), keys = call.causal ? position + valid : rows,
            dim = call.head_dim;
  const auto from = PackedSource<T>().open(call, work.segment, work.head / call.group);
  const int64_t first_row = begin + position;
  const T* queries =
      static_cast<const T*>(call.qkv) + first_row * call.width() + call.query_column(work.head);
  const T* d_out =
      static_cast<const T*>(grad.d_out) + first_row * call.out_width() + call.query_column(work.head);
  auto& memory = *reinterpret_cast<SimtMemory<kGroups>*>(shared_memory());
  const SimtPlace at;
  const uint64_t seed = call.row_keys ? call.head_seeds[work.head] : 0;

  float d_q[4][4 * kGroups] = {};
  for (int key0 = 0; key0 < keys; key0 += kSimtTile) {
    const int n = min(kSimtTile, keys - key0);
    float p[4][4], d_s[4][4];
    simt_scores(
        p, memory, dim, valid, [&](int r) { return queries + r * call.width(); }, n,
        [&](int r) { return from.key(key0 + r); }, at);
    simt_scores(
        d_s, memory, dim, valid, [&](int r) { return d_out + r * call.out_width(); }, n,
        [&](int r) { return from.value(key0 + r); }, at);
    simt_gradients(p, d_s, call, grad, work.head, seed, first_row, position, valid, key0, n, at);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      *reinterpret_cast<float4*>(memory.weights + (at.tx * 4 + j) * kSimtStride + at.ty * 4) =
          float4{d_s[0][j], d_s[1][j], d_s[2][j], d_s[3][j]};
    simt_load_values(
        memory, dim, first_column, n, [&](int r) { return from.key(key0 + r); }, at);
    __syncthreads();
    simt_multiply<kGroups>(d_q, memory.weights, memory.values, kSimtTile * kGroups, n, at);
  }
  T* to = static_cast<T*>(grad.d_qkv) + first_row * call.width() + call.query_column(work.head);
  simt_each<kGroups>(dim, first_column, valid, at, [&](int i, int c, int row, int d) {
    to[row * call.width() + d] = narrow<T>(d_q[i][c] * call.scale);
  });
}

template <class T, int kGroups>
__global__ void __launch_bounds__(kSimtThreads)
    simt_backward_keys_kernel(AttentionCall call, BackwardCall grad, int slices) {
  const int first_column = static_cast<int>(blockIdx.x) % slices * kSimtTile * kGroups;
  const BlockPlace work(call, call.kv_heads, false, static_cast<int>(blockIdx.x) / slices);
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), key0 = work.block * kSimtTile;
  if (key0 >= rows) return;
  const int valid = min(kSimtTile, rows - key0), dim = call.head_dim;
  const auto from = PackedSource<T>().open(call, work.segment, work.head);
  auto& memory = *reinterpret_cast<SimtMemory<kGroups>*>(shared_memory());
  const SimtPlace at;

  float d_k[4][4 * kGroups] = {}, d_v[4][4 * kGroups] = {};
  for (int head = work.head * call.group; head < (work.head + 1) * call.group; ++head) {
    const uint64_t seed = call.row_keys ? call.head_seeds[head] : 0;
    for (int position = call.causal ? key0 : 0; position < rows; position += kSimtTile) {
      const int n = min(kSimtTile, rows - position);
      const int64_t first_row = begin + position;
      const T* queries = static_cast<const T*>(call.qkv) + first_row * call.width() + call.query_column(head);
      const T* d_out =
          static_cast<const T*>(grad.d_out) + first_row * call.out_width() + call.query_column(head);
      const auto query_at = [&](int r) { return queries + r * call.width(); };
      const auto d_out_at = [&](int r) { return d_out + r * call.out_width(); };
      float p[4][4], d_s[4][4];
      simt_scores(
          p, memory, dim, n, query_at, valid, [&](int r) { return from.key(key0 + r); }, at);
      simt_scores(
          d_s, memory, dim, n, d_out_at, valid, [&](int r) { return from.value(key0 + r); }, at);
      simt_gradients(p, d_s, call, grad, head, seed, first_row, position, n, key0, valid, at);
      // Both products sum over queries, the rows of p and d_s; rows of the results are keys.
      const auto add = [&](const float(&left)[4][4], auto right_at, float(&sum)[4][4 * kGroups]) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i)
          *reinterpret_cast<float4*>(memory.weights + (at.ty * 4 + i) * kSimtStride + at.tx * 4) =
              float4{left[i][0], left[i][1], left[i][2], left[i][3]};
        simt_load_values(memory, dim, first_column, n, right_at, at);
        __syncthreads();
        simt_multiply<kGroups>(sum, memory.weights, memory.values, kSimtTile * kGroups, n, at);
      };
      add(p, d_out_at, d_v);
      add(d_s, query_at, d_k);
    }
  }
  T* to = static_cast<T*>(grad.d_qkv) + (begin + key0) * call.width();
  simt_each<kGroups>(dim, first_column, valid, at, [&](int i, int c, int row, int d) {
    to[row * call.width() + call.key_column(work.head) + d] = narrow<T>(d_k[i][c] * call.scale);
    to[row * call.width() + call.value_column(work.head) + d] = narrow<T>(d_v[i][c]);
  });
}

}  // namespace trireme::cuda
