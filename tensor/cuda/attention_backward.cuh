// The backward kernels of attention on tensor cores: FlashAttention-2's recomputing backward (Dao 2023,
// arXiv:2307.08691) in the two-pass form of tensor/cpu/attention.h. With P the weights, D the dropout
// factors:
//   dV = (P D)^T dO;  dS = P (D (dO V^T) - delta);  dQ = scale dS K;  dK = scale dS^T Q
// The first pass holds queries and streams keys, the second holds keys, with scores transposed, and streams
// queries of all the heads that share them. Either way weights and score gradients go from accumulators to
// the next product's left operand without leaving the registers: seven products a tile for the five of a
// single pass, but no sum that two blocks add to, nor a trip of P and dS through shared memory.
#pragma once

#include "tensor/cuda/attention_forward.cuh"

namespace trireme::cuda {

// What only backward reads: gradients and outputs [rows, q_heads * head_dim], sums [rows, q_heads].
struct BackwardCall {
  const void* d_out;
  const float* lse;
  const float* delta;  // sum over a head's elements of d_out * out
  void* d_qkv;
};

template <int kDim>
struct BackwardShape {
  static constexpr int kRows = 128;  // of the side that a block holds
  // First pass: a warp's accumulators are kBlocks x 16 x (kDim + 2 kColumns) floats; kept to 192 a lane.
  static constexpr int kQueryBlocks = 2, kQueryThreads = 128, kQueryColumns = kDim <= 64 ? 64 : 32;
  // Second pass: kBlocks x 16 x (2 kDim + 2 kColumns).
  static constexpr int kKeyBlocks = kDim <= 64 ? 2 : 1, kKeyThreads = kDim <= 64 ? 128 : 256,
                       kKeyColumns = kDim <= 64 ? 32 : 64;
  static_assert(kQueryBlocks * 16 * (kQueryThreads / 32) == kRows &&
                kKeyBlocks * 16 * (kKeyThreads / 32) == kRows);

  // Of one stage of streamed queries: their tile and that of d_out, lse, delta, and the keys of their
  // dropout.
  static constexpr uint32_t kSumsAt = 2 * kTileBytes<kDim, kKeyColumns>,
                            kRowKeysAt = kSumsAt + 2 * 4 * kKeyColumns,
                            kStageBytes = kRowKeysAt + 8 * kKeyColumns;
  static constexpr size_t kQueryBytes = 2 * kTileBytes<kDim, kRows> + 4 * kTileBytes<kDim, kQueryColumns>,
                          kKeyBytes = 2 * kTileBytes<kDim, kRows> + 2 * kStageBytes;
  static_assert(kStageBytes % 16 == 0);
};

template <class T, int kDim, bool kDropout>
__global__ void __launch_bounds__(BackwardShape<kDim>::kQueryThreads)
    backward_queries_kernel(AttentionCall call, BackwardCall grad) {
  using Shape = BackwardShape<kDim>;
  constexpr int kRows = Shape::kRows, kKeys = Shape::kQueryColumns, kBlocks = Shape::kQueryBlocks,
                kThreads = Shape::kQueryThreads;
  const BlockPlace work(call, call.q_heads, call.causal, static_cast<int>(blockIdx.x));
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), position = work.block * kRows;
  if (position >= rows) return;
  const int valid = min(kRows, rows - position), keys = call.causal ? position + valid : rows;
  const auto from = PackedSource<T>().open(call, work.segment, work.head / call.group);
  const LanePlace at;
  const int me = static_cast<int>(threadIdx.x), warp_row = at.warp * 16 * kBlocks;

  const uint32_t q_tile = shared_address(shared_memory()), d_out_tile = q_tile + kTileBytes<kDim, kRows>,
                 k_tiles = d_out_tile + kTileBytes<kDim, kRows>;
  const auto load_keys = [&](int tile) {
    const int key0 = tile * kKeys, n = min(kKeys, keys - key0);
    const uint32_t k_tile = k_tiles + tile % 2 * 2 * kTileBytes<kDim, kKeys>;
    load_tile<kDim, kKeys, kThreads>(k_tile, me, n, call.head_dim, [&](int r) { return from.key(key0 + r); });
    load_tile<kDim, kKeys, kThreads>(k_tile + kTileBytes<kDim, kKeys>, me, n, call.head_dim,
                                     [&](int r) { return from.value(key0 + r); });
    commit_copies();
  };
  const int64_t first_row = begin + position;
  const T* queries =
      static_cast<const T*>(call.qkv) + first_row * call.width() + call.query_column(work.head);
  const T* d_out =
      static_cast<const T*>(grad.d_out) + first_row * call.out_width() + call.query_column(work.head);
  load_tile<kDim, kRows, kThreads>(q_tile, me, valid, call.head_dim,
                                   [&](int r) { return queries + r * call.width(); });
  load_tile<kDim, kRows, kThreads>(d_out_tile, me, valid, call.head_dim,
                                   [&](int r) { return d_out + r * call.out_width(); });
  load_keys(0);

  float lse[kBlocks][2], delta[kBlocks][2];
  uint64_t seed = 0;
  int64_t row_key[kBlocks] = {};
  if constexpr (kDropout) seed = call.head_seeds[work.head];
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + m * 16 + half * 8 + at.group;
      const int64_t i = (first_row + row) * call.q_heads + work.head;
      lse[m][half] = row < valid ? grad.lse[i] : INFINITY;  // a weight of 0 where no query is
      delta[m][half] = row < valid ? grad.delta[i] : 0.0f;
    }
    if constexpr (kDropout) {
      const int row = warp_row + m * 16 + at.group + at.pair % 2 * 8;
      if (row < valid) row_key[m] = call.row_keys[first_row + row];
    }
  }

  float d_q[kBlocks][kDim / 8][4] = {};
  const int tiles = (keys + kKeys - 1) / kKeys;
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<0>();
    __syncthreads();
    if (tile + 1 < tiles) load_keys(tile + 1);
    const int key0 = tile * kKeys;
    if (call.causal && key0 > position + warp_row + 16 * kBlocks - 1) continue;
    const uint32_t k_tile = k_tiles + tile % 2 * 2 * kTileBytes<kDim, kKeys>,
                   v_tile = k_tile + kTileBytes<kDim, kKeys>;

    float p[kBlocks][kKeys / 8][4], d_s[kBlocks][kKeys / 8][4];
    multiply_transposed<T, kDim, kBlocks, kKeys>(p, q_tile, warp_row, k_tile, at.lane);
    multiply_transposed<T, kDim, kBlocks, kKeys>(d_s, d_out_tile, warp_row, v_tile, at.lane);
    KeepByQuery<kBlocks, kKeys> keep;
    if constexpr (kDropout) keep.draw(call, seed, row_key, key0, at);
    const bool masked = key0 + kKeys > keys || (call.causal && key0 + kKeys - 1 > position + warp_row);
#pragma unroll
    for (int m = 0; m < kBlocks; ++m)
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float weight = exp2_fast(p[m][n][e] * call.scale_log2e - lse[m][e / 2]);
          if (masked) {
            const int key = key0 + n * 8 + at.pair * 2 + e % 2,
                      query = position + warp_row + m * 16 + e / 2 * 8 + at.group;
            if (key >= keys || (call.causal && key > query)) weight = 0;
          }
          float d_weight = d_s[m][n][e];
          if constexpr (kDropout) d_weight = keep.keeps(m, n, e) ? d_weight * call.keep_scale : 0.0f;
          d_s[m][n][e] = weight * (d_weight - delta[m][e / 2]);
        }
    multiply_weights<T, kDim, kBlocks, kKeys>(d_q, d_s, k_tile, at.lane);
  }

  float factor[kBlocks][2];
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) factor[m][0] = factor[m][1] = call.scale;
  T* to = static_cast<T*>(grad.d_qkv) + first_row * call.width() + call.query_column(work.head);
  store_rows<T, kDim, kBlocks>(d_q, factor, q_tile, warp_row, valid, call.head_dim, at,
                               [&](int r) { return to + r * call.width(); });
}

// Rows of scores are keys here, columns queries. A query that is not there has a row of zeros, zero sums, and
// so no part in any gradient; a key that is not there spoils only its own row, which is not written.
template <class T, int kDim, bool kDropout>
__global__ void __launch_bounds__(BackwardShape<kDim>::kKeyThreads)
    backward_keys_kernel(AttentionCall call, BackwardCall grad) {
  using Shape = BackwardShape<kDim>;
  constexpr int kRows = Shape::kRows, kQueries = Shape::kKeyColumns, kBlocks = Shape::kKeyBlocks,
                kThreads = Shape::kKeyThreads;
  const BlockPlace work(call, call.kv_heads, false,
                        static_cast<int>(blockIdx.x));  // the first blocks have most queries
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), key0 = work.block * kRows;
  if (key0 >= rows) return;
  const int valid = min(kRows, rows - key0);
  const auto from = PackedSource<T>().open(call, work.segment, work.head);
  const LanePlace at;
  const int me = static_cast<int>(threadIdx.x), warp_row = at.warp * 16 * kBlocks;

  const uint32_t k_tile = shared_address(shared_memory()), v_tile = k_tile + kTileBytes<kDim, kRows>,
                 stages = v_tile + kTileBytes<kDim, kRows>;
  // Step i is query tile first_tile + i % tiles of head i / tiles of the group.
  const int first_tile = call.causal ? key0 / kQueries : 0,
            tiles = (rows + kQueries - 1) / kQueries - first_tile, steps = tiles * call.group;
  const auto load_queries = [&](int step) {
    const int head = work.head * call.group + step / tiles, position = (first_tile + step % tiles) * kQueries,
              n = min(kQueries, rows - position);
    const int64_t first_row = begin + position;
    const uint32_t stage = stages + step % 2 * Shape::kStageBytes;
    const T* queries = static_cast<const T*>(call.qkv) + first_row * call.width() + call.query_column(head);
    const T* d_out =
        static_cast<const T*>(grad.d_out) + first_row * call.out_width() + call.query_column(head);
    load_tile<kDim, kQueries, kThreads>(stage, me, n, call.head_dim,
                                        [&](int r) { return queries + r * call.width(); });
    load_tile<kDim, kQueries, kThreads>(stage + kTileBytes<kDim, kQueries>, me, n, call.head_dim,
                                        [&](int r) { return d_out + r * call.out_width(); });
    if (me < 2 * kQueries) {
      const int row = me % kQueries;
      const float* sums = me < kQueries ? grad.lse : grad.delta;
      copy_async<4>(stage + Shape::kSumsAt + me * 4,
                    sums + (first_row + (row < n ? row : 0)) * call.q_heads + head, row < n);
      if (kDropout && me < kQueries)
        copy_async<8>(stage + Shape::kRowKeysAt + row * 8, call.row_keys + first_row + (row < n ? row : 0),
                      row < n);
    }
    commit_copies();
  };
  load_tile<kDim, kRows, kThreads>(k_tile, me, valid, call.head_dim,
                                   [&](int r) { return from.key(key0 + r); });
  load_tile<kDim, kRows, kThreads>(v_tile, me, valid, call.head_dim,
                                   [&](int r) { return from.value(key0 + r); });
  load_queries(0);

  float d_k[kBlocks][kDim / 8][4] = {}, d_v[kBlocks][kDim / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();
    if (step + 1 < steps) load_queries(step + 1);
    const int position = (first_tile + step % tiles) * kQueries, warp_key = key0 + warp_row;
    if (call.causal && warp_key > position + kQueries - 1)
      continue;  // none of these queries sees this warp's keys
    const uint32_t q_tile = stages + step % 2 * Shape::kStageBytes,
                   d_out_tile = q_tile + kTileBytes<kDim, kQueries>;
    const char* stage = shared_memory() + (q_tile - k_tile);
    const float* lse = reinterpret_cast<const float*>(stage + Shape::kSumsAt);
    const float* delta = lse + kQueries;

    float p[kBlocks][kQueries / 8][4], d_s[kBlocks][kQueries / 8][4];
    multiply_transposed<T, kDim, kBlocks, kQueries>(p, k_tile, warp_row, q_tile, at.lane);
    multiply_transposed<T, kDim, kBlocks, kQueries>(d_s, v_tile, warp_row, d_out_tile, at.lane);
    KeepByKey<kBlocks, kQueries> keep;
    if constexpr (kDropout) {
      const int64_t* row_keys = reinterpret_cast<const int64_t*>(stage + Shape::kRowKeysAt);
      keep.draw(
          call, call.head_seeds[work.head * call.group + step / tiles],
          [&](int column) { return row_keys[column]; }, warp_key, at);
    }
    const bool masked = call.causal && warp_key + kBlocks * 16 - 1 > position;
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
      float column_lse[2], column_delta[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        column_lse[i] = lse[n * 8 + at.pair * 2 + i];
        column_delta[i] = delta[n * 8 + at.pair * 2 + i];
      }
#pragma unroll
      for (int m = 0; m < kBlocks; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float weight = exp2_fast(p[m][n][e] * call.scale_log2e - column_lse[e % 2]);
          if (masked && warp_key + m * 16 + e / 2 * 8 + at.group > position + n * 8 + at.pair * 2 + e % 2)
            weight = 0;
          float d_weight = d_s[m][n][e], kept = weight;
          if constexpr (kDropout) {
            const float keeps = keep.keeps(m, n, e) ? call.keep_scale : 0.0f;
            d_weight *= keeps;
            kept *= keeps;
          }
          d_s[m][n][e] = weight * (d_weight - column_delta[e % 2]);
          p[m][n][e] = kept;
        }
    }
    multiply_weights<T, kDim, kBlocks, kQueries>(d_v, p, d_out_tile, at.lane);
    multiply_weights<T, kDim, kBlocks, kQueries>(d_k, d_s, q_tile, at.lane);
  }

  float factor[kBlocks][2], one[kBlocks][2];
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) factor[m][0] = factor[m][1] = call.scale, one[m][0] = one[m][1] = 1.0f;
  T* to = static_cast<T*>(grad.d_qkv) + (begin + key0) * call.width();
  store_rows<T, kDim, kBlocks>(d_k, factor, k_tile, warp_row, valid, call.head_dim, at,
                               [&](int r) { return to + r * call.width() + call.key_column(work.head); });
  store_rows<T, kDim, kBlocks>(d_v, one, v_tile, warp_row, valid, call.head_dim, at,
                               [&](int r) { return to + r * call.width() + call.value_column(work.head); });
}

}  // namespace trireme::cuda
