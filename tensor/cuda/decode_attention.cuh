// Decoding over a paged cache: few queries against many keys, so the time is that of reading the cache. The
// keys of a sequence are cut into chunks so that a small batch with long contexts fills the device
// (flash-decoding, Dao et al. 2023), and the partial results are merged in order.
#pragma once

#include "tensor/cuda/paged_cache.cuh"

namespace trireme::cuda {

struct DecodeCall {
  float* partials;  // [sequences, kv_heads, max_queries, chunks] of head_dim + 2: top, total, unscaled output
  int chunks;       // of the longest sequence
  int max_queries;  // that share a key head in a decoding sequence: new rows times query heads of the group
  int query_blocks;
};

// What a block works on: queries [first, first + count) of a sequence's and key head's, query q being new row
// q / group and head q % group of the group; and keys [begin, end).
struct DecodePlace {
  int sequence, kv_head, chunk, chunks, size, first, count, past, begin, end;
  int64_t row0;
  bool idle;

  template <class Source>
  __device__ __forceinline__ DecodePlace(const AttentionCall& call, const Source& source,
                                         const DecodeCall& decode, int queries_in_block) {
    int index = static_cast<int>(blockIdx.x);
    chunk = index % decode.chunks, index /= decode.chunks;
    first = index % decode.query_blocks * queries_in_block, index /= decode.query_blocks;
    kv_head = index % call.kv_heads, sequence = index / call.kv_heads;
    row0 = call.starts[sequence];
    const int rows = static_cast<int>(call.starts[sequence + 1] - row0);
    past = source.lengths[sequence];
    const int keys = past + rows;
    size = decode_chunk(keys);
    chunks = (keys + size - 1) / size;
    count = min(queries_in_block, rows * call.group - first);
    begin = chunk * size, end = min(begin + size, keys);
    idle = rows == 0 || !decodes(rows, call.group) || count <= 0 || begin >= keys;
  }
  // Element d of a query's output, or where its partial result of this chunk lies.
  template <class T>
  __device__ __forceinline__ T* output(const AttentionCall& call, T* out, int query) const {
    return out + (row0 + query / call.group) * call.out_width() +
           call.query_column(kv_head * call.group + query % call.group);
  }
  __device__ __forceinline__ float* partial(const AttentionCall& call, const DecodeCall& decode,
                                            int query) const {
    const int64_t at =
        (int64_t{sequence * call.kv_heads + kv_head} * decode.max_queries + query) * decode.chunks + chunk;
    return decode.partials + at * (call.head_dim + 2);
  }
  // The keys that a query sees.
  __device__ __forceinline__ int seen(const AttentionCall& call, int query) const {
    return min(end, past + query / call.group + 1);
  }
};

// What a chunk leaves of one query: a partial result, or the output if there is no other chunk.
template <class T, class SumAt>
__device__ __forceinline__ void finish_decode(const AttentionCall& call, const DecodeCall& decode,
                                              const DecodePlace& place, T* out, int query, float top,
                                              float total, int me, int threads, SumAt sum_at) {
  if (place.chunks == 1) {
    T* to = place.output(call, out, query);
    for (int d = me; d < call.head_dim; d += threads) to[d] = narrow<T>(sum_at(d) / total);
    return;
  }
  float* to = place.partial(call, decode, query);
  if (me == 0) to[0] = top, to[1] = total;
  for (int d = me; d < call.head_dim; d += threads) to[2 + d] = sum_at(d);
}

// 2^(part - whole) where nothing was seen counts as 0.
__device__ __forceinline__ float share_of(float part, float whole) {
  return part == -INFINITY ? 0.0f : exp2f(part - whole);
}

inline constexpr int kDecodeThreads = 128, kDecodeWarps = 4, kDecodeRows = 16, kDecodeStep = 32;

// Of a block: the queries, then by warp its keys and values of one step; later the warps' results in their
// place.
template <int kDim>
constexpr size_t decode_shared_bytes() {
  const size_t steps = kTileBytes<kDim, kDecodeRows> + kDecodeWarps * 2 * kTileBytes<kDim, kDecodeStep>;
  const size_t results = kDecodeWarps * kDecodeRows * (kDim + 2) * sizeof(float);
  return steps > results ? steps : results;
}

// 16-bit storage: tensor cores, so that the arithmetic of up to 16 queries stays far below the time of the
// reads. Each warp has a quarter of the chunk to itself and goes through it in steps of 32 keys: keys of the
// next step arrive during the weights and values of this one, and its values during the scores of the next.
template <class T, int kDim>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_kernel(AttentionCall call, PagedSource<T> source, DecodeCall decode, T* out) {
  constexpr int kStep = kDecodeStep;
  const DecodePlace place(call, source, decode, kDecodeRows);
  if (place.idle) return;
  const auto from = source.open(call, place.sequence, place.kv_head);
  const LanePlace at;
  const int me = static_cast<int>(threadIdx.x), quarter = place.size / kDecodeWarps;

  const uint32_t q_tile = shared_address(shared_memory()),
                 k_tile = q_tile + kTileBytes<kDim, kDecodeRows> + at.warp * 2 * kTileBytes<kDim, kStep>,
                 v_tile = k_tile + kTileBytes<kDim, kStep>;
  const T* queries = static_cast<const T*>(call.qkv) + place.row0 * call.width();
  load_tile<kDim, kDecodeRows, kDecodeThreads>(q_tile, me, place.count, call.head_dim, [&](int r) {
    const int query = place.first + r;
    return queries + query / call.group * call.width() +
           call.query_column(place.kv_head * call.group + query % call.group);
  });
  commit_copies();
  const int begin = place.begin + at.warp * quarter, end = min(begin + quarter, place.end);
  const auto load = [&](uint32_t tile, const T* rows, int key0) {
    // A lane finds the place of one row for all. (Past the end: some row that is.)
    const int64_t offset = from.at(min(key0 + at.lane, place.end - 1));
    constexpr int kPieces = kDim / 8;
#pragma unroll 4
    for (int i = at.lane; i < kStep * kPieces; i += 32) {
      const int row = i / kPieces, piece = i % kPieces;
      const bool inside = key0 + row < end && piece * 8 < call.head_dim;
      copy_async<16>(tile + row * kRowBytes<kDim> + piece * 16,
                     rows + from_lane(offset, row) + (inside ? piece * 8 : 0), inside);
    }
  };
  const auto load_keys = [&](int key0) {
    if (key0 < end) load(k_tile, from.keys, key0);
    commit_copies();
  };
  const auto load_values = [&](int key0) {
    if (key0 < end) load(v_tile, from.values, key0);
    commit_copies();
  };
  load_keys(begin);
  load_values(begin);
  wait_copies<2>();
  __syncthreads();  // the queries are here

  int seen[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    seen[half] = min(end, place.seen(call, place.first + half * 8 + at.group));
  float sum[1][kDim / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int key0 = begin; key0 < end; key0 += kStep) {
    wait_copies<1>();
    __syncwarp();
    float s[1][kStep / 8][4];
    multiply_transposed<T, kDim, 1, kStep>(s, q_tile, 0, k_tile, at.lane);
    __syncwarp();
    load_keys(key0 + kStep);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kStep / 8; ++n)
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; ++e) {
          if (key0 + n * 8 + at.pair * 2 + e % 2 >= seen[half]) s[0][n][e] = -INFINITY;
          highest = fmaxf(highest, s[0][n][e]);
        }
      highest = fmaxf(highest, swap_lanes(highest, 1));
      highest = fmaxf(highest, swap_lanes(highest, 2));
      const float new_top = fmaxf(top[half], highest);
      const float shift = new_top == -INFINITY ? 0.0f : new_top * call.scale_log2e;  // nothing seen so far
      const float rescale = exp2_fast(top[half] * call.scale_log2e - shift);
      top[half] = new_top;
      float added = 0;
#pragma unroll
      for (int n = 0; n < kStep / 8; ++n)
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; ++e) {
          s[0][n][e] = exp2_fast(s[0][n][e] * call.scale_log2e - shift);
          added += s[0][n][e];
        }
      total[half] = total[half] * rescale + added;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) sum[0][n][half * 2] *= rescale, sum[0][n][half * 2 + 1] *= rescale;
    }
    wait_copies<1>();
    __syncwarp();
    multiply_weights<T, kDim, 1, kStep>(sum, s, v_tile, at.lane);
    __syncwarp();
    load_values(key0 + kStep);
  }
  wait_copies<0>();
  __syncthreads();  // the tiles are free

  float* sums = reinterpret_cast<float*>(shared_memory());
  float* tops = sums + kDecodeWarps * kDecodeRows * kDim;
  float* totals = tops + kDecodeWarps * kDecodeRows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += swap_lanes(total[half], 1);
    total[half] += swap_lanes(total[half], 2);
    const int row = at.warp * kDecodeRows + half * 8 + at.group;
    if (at.pair == 0) tops[row] = top[half] * call.scale_log2e, totals[row] = total[half];
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      sums[row * kDim + n * 8 + at.pair * 2] = sum[0][n][half * 2];
      sums[row * kDim + n * 8 + at.pair * 2 + 1] = sum[0][n][half * 2 + 1];
    }
  }
  __syncthreads();
  for (int r = at.warp; r < place.count; r += kDecodeWarps) {
    float all_top = -INFINITY, all_total = 0, share[kDecodeWarps];
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) all_top = fmaxf(all_top, tops[w * kDecodeRows + r]);
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      share[w] = share_of(tops[w * kDecodeRows + r], all_top);
      all_total += share[w] * totals[w * kDecodeRows + r];
    }
    finish_decode(call, decode, place, out, place.first + r, all_top, all_total, at.lane, 32, [&](int d) {
      float all = 0;
#pragma unroll
      for (int w = 0; w < kDecodeWarps; ++w) all += share[w] * sums[(w * kDecodeRows + r) * kDim + d];
      return all;
    });
  }
}

inline constexpr int kSimtDecodeQueries = 8, kSimtDecodeTile = 64;

inline size_t simt_decode_shared_bytes(int64_t head_dim) {
  return kSimtDecodeTile * sizeof(int64_t) +
         (2 * kSimtDecodeQueries * head_dim + kSimtDecodeQueries * (kSimtDecodeTile + 3)) * sizeof(float);
}

// Any storage and head_dim: the block goes through its chunk in tiles of 64 keys. Eight lanes share a key's
// score; a thread has columns of the output.
template <class T>
__global__ void __launch_bounds__(kDecodeThreads)
    simt_decode_kernel(AttentionCall call, PagedSource<T> source, DecodeCall decode, T* out) {
  constexpr int kQueries = kSimtDecodeQueries, kTile = kSimtDecodeTile;
  const DecodePlace place(call, source, decode, kQueries);
  if (place.idle) return;
  const auto from = source.open(call, place.sequence, place.kv_head);
  const LanePlace at;
  const int me = static_cast<int>(threadIdx.x), dim = call.head_dim;
  int64_t* offsets = reinterpret_cast<int64_t*>(shared_memory());
  float* queries = reinterpret_cast<float*>(offsets + kTile);
  float* sums = queries + kQueries * dim;
  float* weights = sums + kQueries * dim;
  float* tops = weights + kQueries * kTile;
  float* totals = tops + kQueries;
  float* rescales = totals + kQueries;

  for (int i = me; i < kQueries * dim; i += kDecodeThreads) {
    const int r = i / dim, query = place.first + r;
    const T* row = static_cast<const T*>(call.qkv) + (place.row0 + query / call.group) * call.width() +
                   call.query_column(place.kv_head * call.group + query % call.group);
    queries[i] = r < place.count ? widen(row[i % dim]) : 0.0f;
    sums[i] = 0;
  }
  if (me < kQueries) tops[me] = -INFINITY, totals[me] = 0;

  for (int key0 = place.begin; key0 < place.end; key0 += kTile) {
    const int n = min(kTile, place.end - key0);
    if (me < kTile) offsets[me] = from.at(min(key0 + me, place.end - 1));
    __syncthreads();
    const int part = at.lane % 8;
    for (int j = me / 8; j < kTile; j += kDecodeThreads / 8) {
      float dot[kQueries] = {};
      const T* key = from.keys + offsets[j];
#pragma unroll 4
      for (int d = part; d < dim; d += 8) {
        const float k = widen(key[d]);
#pragma unroll
        for (int r = 0; r < kQueries; ++r) dot[r] += queries[r * dim + d] * k;
      }
#pragma unroll
      for (int r = 0; r < kQueries; ++r) {
#pragma unroll
        for (int with = 1; with < 8; with *= 2) dot[r] += swap_lanes(dot[r], with);
        if (part == 0) weights[r * kTile + j] = dot[r] * call.scale_log2e;
      }
    }
    __syncthreads();
    for (int r = at.warp; r < kQueries; r += kDecodeWarps) {
      const int seen = place.seen(call, place.first + r) - key0;
      float score[kTile / 32], highest = -INFINITY, added = 0;
#pragma unroll
      for (int i = 0; i < kTile / 32; ++i) {
        const int j = i * 32 + at.lane;
        score[i] = j < seen ? weights[r * kTile + j] : -INFINITY;
        highest = fmaxf(highest, score[i]);
      }
#pragma unroll
      for (int with = 1; with < 32; with *= 2) highest = fmaxf(highest, swap_lanes(highest, with));
      const float old_top = tops[r], new_top = fmaxf(old_top, highest);
#pragma unroll
      for (int i = 0; i < kTile / 32; ++i) {
        const float weight = share_of(score[i], new_top);
        added += weight;
        weights[r * kTile + i * 32 + at.lane] = weight;
      }
#pragma unroll
      for (int with = 1; with < 32; with *= 2) added += swap_lanes(added, with);
      const float rescale = share_of(old_top, new_top);
      __syncwarp();  // every lane has read tops[r]
      if (at.lane == 0) tops[r] = new_top, totals[r] = totals[r] * rescale + added, rescales[r] = rescale;
    }
    __syncthreads();
    for (int d = me; d < dim; d += kDecodeThreads) {
      float added[kQueries] = {};
#pragma unroll 4
      for (int j = 0; j < n; ++j) {
        const float value = widen(from.values[offsets[j] + d]);
#pragma unroll
        for (int r = 0; r < kQueries; ++r) added[r] += weights[r * kTile + j] * value;
      }
#pragma unroll
      for (int r = 0; r < kQueries; ++r) sums[r * dim + d] = sums[r * dim + d] * rescales[r] + added[r];
    }
    __syncthreads();
  }
  for (int r = 0; r < place.count; ++r)
    finish_decode(call, decode, place, out, place.first + r, tops[r], totals[r], me, kDecodeThreads,
                  [&](int d) { return sums[r * dim + d]; });
}

// A warp merges the chunks of one query of one key head: lane c has chunk c's top and total.
template <class T>
__global__ void __launch_bounds__(kDecodeThreads)
    merge_decode_kernel(AttentionCall call, PagedSource<T> source, DecodeCall decode, int64_t count, T* out) {
  const LanePlace at;
  const int64_t index = int64_t{blockIdx.x} * kDecodeWarps + at.warp;
  if (index >= count) return;
  const int query = static_cast<int>(index % decode.max_queries),
            pair = static_cast<int>(index / decode.max_queries), kv_head = pair % call.kv_heads,
            sequence = pair / call.kv_heads;
  const int64_t row0 = call.starts[sequence];
  const int rows = static_cast<int>(call.starts[sequence + 1] - row0), keys = source.lengths[sequence] + rows,
            size = decode_chunk(keys), chunks = (keys + size - 1) / size;
  if (rows == 0 || !decodes(rows, call.group) || query >= rows * call.group || chunks == 1) return;
  const int64_t stride = call.head_dim + 2;
  const float* partials = decode.partials + index * decode.chunks * stride;
  const bool mine = at.lane < chunks;
  const float top = mine ? partials[at.lane * stride] : -INFINITY,
              total = mine ? partials[at.lane * stride + 1] : 0.0f;
  float all_top = top;
#pragma unroll
  for (int with = 1; with < 32; with *= 2) all_top = fmaxf(all_top, swap_lanes(all_top, with));
  const float share = share_of(top, all_top);
  float all_total = share * total;
#pragma unroll
  for (int with = 1; with < 32; with *= 2) all_total += swap_lanes(all_total, with);
  T* to = out + (row0 + query / call.group) * call.out_width() +
          call.query_column(kv_head * call.group + query % call.group);
  for (int d0 = 0; d0 < call.head_dim; d0 += 32) {  // every lane takes part in the exchange
    const int d = d0 + at.lane < call.head_dim ? d0 + at.lane : call.head_dim - 1;
    float sum = 0;
#pragma unroll 4
    for (int c = 0; c < chunks; ++c) sum += from_lane(share, c) * partials[c * stride + 2 + d];
    if (d0 + at.lane < call.head_dim) to[d] = narrow<T>(sum / all_total);
  }
}

}  // namespace trireme::cuda
