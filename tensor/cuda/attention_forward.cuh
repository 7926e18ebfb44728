// The forward kernel of attention on tensor cores, over packed rows (attention.cu) or a paged cache
// (cached_attention.cu). FlashAttention-2, Dao 2023, arXiv:2307.08691.
#pragma once

#include <cmath>
#include <initializer_list>
#include <type_traits>

#include "tensor/cuda/attention_tile.cuh"

namespace trireme::cuda {

// The keys and values of a packed segment. `past` keys come before the segment's own first row.
template <class T>
struct PackedSource {
  struct Keys {
    const T *keys, *values;
    int64_t stride;
    __device__ __forceinline__ const T* key(int j) const { return keys + j * stride; }
    __device__ __forceinline__ const T* value(int j) const { return values + j * stride; }
  };
  __device__ __forceinline__ int past(const AttentionCall&, int) const { return 0; }
  __device__ __forceinline__ bool skips(const AttentionCall&, int) const { return false; }
  __device__ __forceinline__ Keys open(const AttentionCall& call, int segment, int kv_head) const {
    const T* rows = static_cast<const T*>(call.qkv) + call.starts[segment] * call.width();
    return {rows + call.key_column(kv_head), rows + call.value_column(kv_head), call.width()};
  }
};

// Rows of queries in a block, over 4 warps of two 16-row fragments each: with two, each fragment of keys and
// values that a warp reads from shared memory serves two products; with one, reading would take longer than
// multiplying.
inline constexpr int kForwardRows = 128, kForwardKeys = 64, kForwardThreads = 128, kForwardFragments = 2;

template <int kDim>
constexpr size_t forward_shared_bytes() {
  return kTileBytes<kDim, kForwardRows> + 4 * kTileBytes<kDim, kForwardKeys>;
}

// out, lse <- attention of one block of queries of one head. Query i of a segment stands at `past + i` among
// its keys. The tiles of keys are double-buffered; one barrier a tile.
template <class T, int kDim, bool kDropout, class Source>
__global__ void __launch_bounds__(kForwardThreads)
    forward_kernel(AttentionCall call, Source source, T* out, float* lse) {
  constexpr int kRows = kForwardRows, kKeys = kForwardKeys, kBlocks = kForwardFragments;
  const BlockPlace work(call, call.q_heads, call.causal, static_cast<int>(blockIdx.x));
  const int64_t begin = call.starts[work.segment];
  const int rows = static_cast<int>(call.starts[work.segment + 1] - begin), first = work.block * kRows;
  if (first >= rows || source.skips(call, rows)) return;
  const int valid = min(kRows, rows - first), position = source.past(call, work.segment) + first;
  const int keys = call.causal ? position + valid : position - first + rows;
  const auto from = source.open(call, work.segment, work.head / call.group);
  const LanePlace at;
  const int me = static_cast<int>(threadIdx.x), warp_row = at.warp * 16 * kBlocks;

  const uint32_t q_tile = shared_address(shared_memory()), k_tiles = q_tile + kTileBytes<kDim, kRows>;
  const auto load_keys = [&](int tile) {
    const int key0 = tile * kKeys, n = min(kKeys, keys - key0);
    const uint32_t k_tile = k_tiles + tile % 2 * 2 * kTileBytes<kDim, kKeys>;
    load_tile<kDim, kKeys, kForwardThreads>(k_tile, me, n, call.head_dim,
                                            [&](int r) { return from.key(key0 + r); });
    load_tile<kDim, kKeys, kForwardThreads>(k_tile + kTileBytes<kDim, kKeys>, me, n, call.head_dim,
                                            [&](int r) { return from.value(key0 + r); });
    commit_copies();
  };
  const T* queries =
      static_cast<const T*>(call.qkv) + (begin + first) * call.width() + call.query_column(work.head);
  load_tile<kDim, kRows, kForwardThreads>(q_tile, me, valid, call.head_dim,
                                          [&](int r) { return queries + r * call.width(); });
  load_keys(0);

  uint64_t seed = 0;
  int64_t row_key[kBlocks] = {};
  if constexpr (kDropout) {
    seed = call.head_seeds[work.head];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      const int row = warp_row + m * 16 + at.group + at.pair % 2 * 8;
      if (row < valid) row_key[m] = call.row_keys[begin + first + row];
    }
  }

  float sum[kBlocks][kDim / 8][4] = {};  // of weights times values
  float top[kBlocks][2], total[kBlocks][2] = {};
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) top[m][0] = top[m][1] = -INFINITY;

  const int tiles = (keys + kKeys - 1) / kKeys;
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<0>();
    __syncthreads();  // the tile is here, and no warp reads the one before, which the next may overwrite
    if (tile + 1 < tiles) load_keys(tile + 1);
    const int key0 = tile * kKeys;
    if (call.causal && key0 > position + warp_row + 16 * kBlocks - 1)
      continue;  // none of this warp's queries sees it
    const uint32_t k_tile = k_tiles + tile % 2 * 2 * kTileBytes<kDim, kKeys>;

    float s[kBlocks][kKeys / 8][4];
    multiply_transposed<T, kDim, kBlocks, kKeys>(s, q_tile, warp_row, k_tile, at.lane);
    if (key0 + kKeys > keys || (call.causal && key0 + kKeys - 1 > position + warp_row)) {
#pragma unroll
      for (int m = 0; m < kBlocks; ++m)
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int key = key0 + n * 8 + at.pair * 2 + e % 2,
                      query = position + warp_row + m * 16 + e / 2 * 8 + at.group;
            if (key >= keys || (call.causal && key > query)) s[m][n][e] = -INFINITY;
          }
    }

    // Every query sees key 0 of the first tile, so from then on its top is finite.
#pragma unroll
    for (int m = 0; m < kBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = s[m][0][half * 2];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          highest = fmaxf(highest, fmaxf(s[m][n][half * 2], s[m][n][half * 2 + 1]));
        highest = fmaxf(highest, swap_lanes(highest, 1));
        highest = fmaxf(highest, swap_lanes(highest, 2));
        const float new_top = fmaxf(top[m][half], highest), shift = new_top * call.scale_log2e;
        const float rescale = exp2_fast(top[m][half] * call.scale_log2e - shift);
        top[m][half] = new_top;
        float added = 0;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = half * 2; e < half * 2 + 2; ++e) {
            s[m][n][e] = exp2_fast(s[m][n][e] * call.scale_log2e - shift);
            added += s[m][n][e];
          }
        total[m][half] = total[m][half] * rescale + added;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) sum[m][n][half * 2] *= rescale, sum[m][n][half * 2 + 1] *= rescale;
      }
    if constexpr (kDropout) {
      KeepByQuery<kBlocks, kKeys> keep;
      keep.draw(call, seed, row_key, key0, at);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m)
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e)
            if (!keep.keeps(m, n, e)) s[m][n][e] = 0;
    }
    multiply_weights<T, kDim, kBlocks, kKeys>(sum, s, k_tile + kTileBytes<kDim, kKeys>, at.lane);
  }

  float factor[kBlocks][2];
#pragma unroll
  for (int m = 0; m < kBlocks; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float all = total[m][half];  // each of the four lanes of a row holds its own columns' part
      all += swap_lanes(all, 1);
      all += swap_lanes(all, 2);
      factor[m][half] = call.keep_scale / all;
      const int row = warp_row + m * 16 + half * 8 + at.group;
      if (lse && at.pair == 0 && row < valid)
        lse[(begin + first + row) * call.q_heads + work.head] = top[m][half] * call.scale_log2e + log2f(all);
    }
  T* to = out + (begin + first) * call.out_width() + call.query_column(work.head);
  store_rows<T, kDim, kBlocks>(sum, factor, q_tile, warp_row, valid, call.head_dim, at,
                               [&](int r) { return to + r * call.out_width(); });
}

// Calls fn with the smallest tile width (std::integral_constant) that holds head_dim <= 128.
template <class Fn>
void with_tile_dim(int64_t head_dim, Fn&& fn) {
  if (head_dim <= 32) return fn(std::integral_constant<int, 32>());
  if (head_dim <= 64) return fn(std::integral_constant<int, 64>());
  if (head_dim <= 80) return fn(std::integral_constant<int, 80>());
  if (head_dim <= 96) return fn(std::integral_constant<int, 96>());
  fn(std::integral_constant<int, 128>());
}

// Whether the kernels on tensor cores can do it: 16-bit storage, rows of whole 16-byte pieces that are
// aligned, and accumulators that fit the registers. Others go to attention_simt.cuh.
inline bool fits_tiles(DType dtype, int64_t head_dim, std::initializer_list<const void*> rows) {
  if (dtype == DType::kF32 || head_dim % 8 != 0 || head_dim > 128) return false;
  for (const void* p : rows)
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  return true;
}

}  // namespace trireme::cuda
