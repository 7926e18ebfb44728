// Tiles of attention on tensor cores, shared by the forward and backward kernels. 16-bit storage, sums in
// f32.
//
// A tile is rows of a head in shared memory, kDim elements each (the head's, then zeros), and 16 bytes more:
// an odd number of 16-byte pieces from row to row, so that the eight rows of an ldmatrix lie in different
// banks whatever kDim. A warp holds matrices in fragments of 16x8 (warp.cuh). What one product leaves in
// accumulators is, rounded and paired, the left operand of the next: element positions agree, so weights
// never pass through shared memory.
#pragma once

#include "tensor/cpu/attention.h"
#include "tensor/cuda/warp.cuh"

namespace trireme::cuda {

template <int kDim>
inline constexpr uint32_t kRowBytes = kDim * 2 + 16;
template <int kDim, int kRows>
inline constexpr uint32_t kTileBytes = kRowBytes<kDim>* kRows;

// The place of a thread in fragments.
struct LanePlace {
  int lane, warp;
  int group, pair;  // row g of a fragment, and the pair of columns 2t, 2t+1
  __device__ __forceinline__ LanePlace()
      : lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        group(lane / 4),
        pair(lane % 4) {}
};

// tile <- rows row_at(0) .. row_at(valid - 1), of head_dim elements (a multiple of 8, 16-byte aligned), zeros
// in the rest of kRows x kDim. All kThreads threads of the block take part, with `me` their number; copies
// are asynchronous.
template <int kDim, int kRows, int kThreads, class RowAt>
__device__ __forceinline__ void load_tile(uint32_t tile, int me, int valid, int head_dim, RowAt row_at) {
  constexpr int kPieces = kDim / 8;
#pragma unroll 1
  for (int i = me; i < kRows * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool inside = row < valid && piece * 8 < head_dim;
    copy_async<16>(tile + row * kRowBytes<kDim> + piece * 16,
                   row_at(inside ? row : 0) + (inside ? piece * 8 : 0), inside);
  }
}

// The left operand's fragments of rows [row, row + 16), elements [k, k + 16) of a tile.
template <int kDim>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], uint32_t tile, int row, int k, int lane) {
  load_matrices<false>(a, tile + (row + lane % 16) * kRowBytes<kDim> + (k + lane / 16 * 8) * 2);
}
// The right operand whose columns are the tile's rows [row, row + 16), elements [k, k + 16) of them: two
// fragments of 8 columns, b[0..1] and b[2..3]. For products with a tile's transpose.
template <int kDim>
__device__ __forceinline__ void load_right_transposed(uint32_t (&b)[4], uint32_t tile, int row, int k,
                                                      int lane) {
  load_matrices<false>(
      b, tile + (row + lane % 8 + lane / 16 * 8) * kRowBytes<kDim> + (k + lane / 8 % 2 * 8) * 2);
}
// The right operand that is rows [row, row + 16) of the tile, columns [column, column + 16): two fragments
// likewise.
template <int kDim>
__device__ __forceinline__ void load_right(uint32_t (&b)[4], uint32_t tile, int row, int column, int lane) {
  load_matrices<true>(b, tile + (row + lane % 16) * kRowBytes<kDim> + (column + lane / 16 * 8) * 2);
}

// s = left right^T: kBlocks x 16 rows from `row` on of the left tile with the first kColumns rows of the
// right one.
template <class T, int kDim, int kBlocks, int kColumns>
__device__ __forceinline__ void multiply_transposed(float (&s)[kBlocks][kColumns / 8][4], uint32_t left,
                                                    int row, uint32_t right, int lane) {
#pragma unroll
  for (int m = 0; m < kBlocks; ++m)
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[m][n][e] = 0;
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    uint32_t a[kBlocks][4];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) load_left<kDim>(a[m], left, row + m * 16, k, lane);
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      uint32_t b[4];
      load_right_transposed<kDim>(b, right, n * 8, k, lane);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        multiply_16x8x16<T>(s[m][n], a[m], b);
        multiply_16x8x16<T>(s[m][n + 1], a[m], b + 2);
      }
    }
  }
}

// sum += weights right, weights being accumulators that are rounded to T: kBlocks x 16 rows, kDepth columns,
// which stand for the first kDepth rows of the right tile.
template <class T, int kDim, int kBlocks, int kDepth>
__device__ __forceinline__ void multiply_weights(float (&sum)[kBlocks][kDim / 8][4],
                                                 const float (&weights)[kBlocks][kDepth / 8][4],
                                                 uint32_t right, int lane) {
#pragma unroll
  for (int k = 0; k < kDepth / 8; k += 2) {
    uint32_t a[kBlocks][4];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      a[m][0] = pack<T>(weights[m][k][0], weights[m][k][1]);
      a[m][1] = pack<T>(weights[m][k][2], weights[m][k][3]);
      a[m][2] = pack<T>(weights[m][k + 1][0], weights[m][k + 1][1]);
      a[m][3] = pack<T>(weights[m][k + 1][2], weights[m][k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      load_right<kDim>(b, right, k * 8, n * 8, lane);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        multiply_16x8x16<T>(sum[m][n], a[m], b);
        multiply_16x8x16<T>(sum[m][n + 1], a[m], b + 2);
      }
    }
  }
}

// Writes kBlocks x 16 rows of accumulators, each times factor[m][half], to rows of device memory, through the
// warp's own rows [row, row + 16 kBlocks) of a tile that no other warp reads any more, so that the stores are
// of 16 bytes. Rows from `valid` on (counted in the tile) and elements from head_dim on are not written.
template <class T, int kDim, int kBlocks, class RowAt>
__device__ __forceinline__ void store_rows(const float (&sum)[kBlocks][kDim / 8][4],
                                           const float (&factor)[kBlocks][2], uint32_t tile, int row,
                                           int valid, int head_dim, const LanePlace& at, RowAt row_at) {
  char* rows = shared_memory() + (tile - shared_address(shared_memory())) + row * kRowBytes<kDim>;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kBlocks; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
        *reinterpret_cast<uint32_t*>(rows + (m * 16 + half * 8 + at.group) * kRowBytes<kDim> + n * 16 +
                                     at.pair * 4) =
            pack<T>(sum[m][n][half * 2] * factor[m][half], sum[m][n][half * 2 + 1] * factor[m][half]);
  __syncwarp();
  constexpr int kPieces = kDim / 8;
#pragma unroll 4
  for (int i = at.lane; i < kBlocks * 16 * kPieces; i += 32) {
    const int r = i / kPieces, piece = i % kPieces;
    if (row + r < valid && piece * 8 < head_dim)
      *reinterpret_cast<uint4*>(row_at(row + r) + piece * 8) =
          *reinterpret_cast<const uint4*>(rows + r * kRowBytes<kDim> + piece * 16);
  }
}

// Everything about the call that the kernels read.
struct AttentionCall {
  const void* qkv;
  const int32_t* starts;
  int q_heads, kv_heads, group, head_dim;
  int blocks;  // of the longest segment; the grid has so many for each segment and head
  bool causal;
  float scale;        // of the scores
  float scale_log2e;  // the same, for powers of 2
  uint32_t drop_threshold, stream;
  float keep_scale;
  const uint64_t* head_seeds;
  const int64_t* row_keys;

  __host__ __device__ int64_t width() const { return int64_t{q_heads + 2 * kv_heads} * head_dim; }
  __host__ __device__ int64_t out_width() const { return int64_t{q_heads} * head_dim; }
  __host__ __device__ int64_t query_column(int head) const { return int64_t{head} * head_dim; }
  __host__ __device__ int64_t key_column(int kv_head) const { return int64_t{q_heads + kv_head} * head_dim; }
  __host__ __device__ int64_t value_column(int kv_head) const {
    return int64_t{q_heads + kv_heads + kv_head} * head_dim;
  }
};

inline AttentionCall attention_call(const cpu::AttentionArgs& a, int64_t rows_in_block) {
  AttentionCall call{};
  call.qkv = a.qkv;
  call.starts = a.starts;
  call.q_heads = static_cast<int>(a.q_heads);
  call.kv_heads = static_cast<int>(a.kv_heads);
  call.group = static_cast<int>(a.q_heads / a.kv_heads);
  call.head_dim = static_cast<int>(a.head_dim);
  call.blocks = static_cast<int>((a.longest + rows_in_block - 1) / rows_in_block);
  call.causal = a.causal;
  call.scale = a.scale;
  call.scale_log2e = a.scale * 1.44269504f;
  if (a.dropout) {
    call.drop_threshold = a.drop_threshold;
    call.stream = a.stream;
    call.head_seeds = a.head_seeds;
    call.row_keys = a.row_keys;
  }
  call.keep_scale = a.dropout ? a.keep_scale : 1.0f;
  return call;
}

// What block `index` of a launch over (segment, head, block) works on. Blocks of one head stand together:
// they share its keys in the second-level cache. Where later blocks see more keys they come first, so that
// the longest pieces of work are not left for the end.
struct BlockPlace {
  int segment, head, block;
  __device__ __forceinline__ BlockPlace(const AttentionCall& call, int heads, bool last_first, int index) {
    block = index % call.blocks;
    if (last_first) block = call.blocks - 1 - block;
    head = index / call.blocks % heads;
    segment = index / call.blocks / heads;
  }
};

// Which weights of a tile of scores survive dropout, one bit each. A tile is kBlocks x 16 rows and kColumns
// <= 64 columns of accumulators. Philox gives four neighbouring keys at once, which lie in the accumulators
// of several lanes; each lane draws for its neighbours and they exchange bits, so that nothing is drawn
// twice.

// Of tiles with queries in rows: row_key[m] is that of row g + 8 (t % 2) of block m.
template <int kBlocks, int kColumns>
struct KeepByQuery {
  uint32_t low[kBlocks], high[kBlocks];  // of rows g and g + 8: bit 4 n + j for key 8 n + 4 (t / 2) + j
  int first;                             // this lane's place among the four keys

  __device__ __forceinline__ void draw(const AttentionCall& call, uint64_t seed,
                                       const int64_t (&row_key)[kBlocks], int key0, const LanePlace& at) {
    static_assert(kColumns <= 64);
    const bool odd = at.pair % 2;
    first = odd ? 2 : 0;
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      uint32_t mine = 0;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        uint32_t word[4];
        philox_words(word, seed, call.stream, static_cast<uint64_t>(row_key[m]),
                     static_cast<uint32_t>(key0 / 4 + 2 * n + at.pair / 2));
#pragma unroll
        for (int j = 0; j < 4; ++j) mine |= uint32_t{word[j] >= call.drop_threshold} << (4 * n + j);
      }
      const uint32_t other = swap_lanes(mine, 1);
      low[m] = odd ? other : mine;
      high[m] = odd ? mine : other;
    }
  }
  __device__ __forceinline__ bool keeps(int m, int n, int e) const {
    return ((e < 2 ? low[m] : high[m]) >> (4 * n + first + e % 2)) & 1;
  }
};

// Of tiles with keys in rows: row_key(column) is that of the query in a column.
template <int kBlocks, int kColumns>
struct KeepByKey {
  uint32_t bits[kBlocks][4];  // by element e of a fragment: bit 4 n + j for key 4 quad + j
  int mine;                   // which of the four keys is this lane's

  template <class RowKey>
  __device__ __forceinline__ void draw(const AttentionCall& call, uint64_t seed, RowKey row_key, int key0,
                                       const LanePlace& at) {
    static_assert(kColumns <= 64);
    // The four lanes that share t and g / 4 hold two quads of keys (rows g and rows g + 8) of two queries:
    // four draws.
    mine = at.group % 4;
    const int quad = mine % 2 * 2 + at.group / 4, column = 2 * at.pair + mine / 2;
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      uint32_t drawn = 0;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        uint32_t word[4];
        philox_words(word, seed, call.stream, static_cast<uint64_t>(row_key(8 * n + column)),
                     static_cast<uint32_t>(key0 / 4 + 4 * m + quad));
#pragma unroll
        for (int j = 0; j < 4; ++j) drawn |= uint32_t{word[j] >= call.drop_threshold} << (4 * n + j);
      }
      // Element e is of rows g + 8 (e / 2) and column 2t + e % 2: drawn by lane number e / 2 + 2 (e % 2) of
      // the four.
#pragma unroll
      for (int e = 0; e < 4; ++e) bits[m][e] = from_lane(drawn, (at.lane & ~12) | (e / 2 + e % 2 * 2) << 2);
    }
  }
  __device__ __forceinline__ bool keeps(int m, int n, int e) const {
    return (bits[m][e] >> (4 * n + mine)) & 1;
  }
};

}  // namespace trireme::cuda
