#include <algorithm>

#include "tensor/cuda/attention_forward.cuh"
#include "tensor/cuda/attention_simt.cuh"
#include "tensor/cuda/cached_attention.h"
#include "tensor/cuda/decode_attention.cuh"

namespace trireme::cuda {
namespace {

constexpr int kWriteThreads = 256;

// One thread copies Piece by Piece: blocks over rows, key heads, and pieces of a head's key and of its value.
template <class T, class Piece>
__global__ void __launch_bounds__(kWriteThreads)
    write_cache_kernel(AttentionCall call, PagedSource<T> source, int sequences, int64_t count, int pieces) {
  const int64_t index = int64_t{blockIdx.x} * kWriteThreads + threadIdx.x;
  if (index >= count) return;
  const int piece = static_cast<int>(index % pieces),
            kv_head = static_cast<int>(index / pieces % call.kv_heads);
  const int64_t row = index / pieces / call.kv_heads;
  int sequence = 0;  // that holds the row, by bisection
  for (int end = sequences; end - sequence > 1;) {
    const int middle = sequence + (end - sequence) / 2;
    (call.starts[middle] <= row ? sequence : end) = middle;
  }
  const auto to = source.open(call, sequence, kv_head);
  const int64_t at = to.at(static_cast<int>(source.lengths[sequence] + row - call.starts[sequence]));
  const T* from = static_cast<const T*>(call.qkv) + row * call.width();
  reinterpret_cast<Piece*>(to.keys + at)[piece] =
      reinterpret_cast<const Piece*>(from + call.key_column(kv_head))[piece];
  reinterpret_cast<Piece*>(to.values + at)[piece] =
      reinterpret_cast<const Piece*>(from + call.value_column(kv_head))[piece];
}

template <class T>
void prefill(const cpu::CachedAttentionArgs& args, bool tiles, T* out) {
  const cpu::AttentionArgs& a = args.attention;
  const AttentionCall call = attention_call(a, tiles ? kForwardRows : kSimtTile);
  const int64_t places = args.sequences * a.q_heads * call.blocks;
  const PagedSource<T> source(args);
  float* no_lse = nullptr;
  if constexpr (sizeof(T) == 2) {
    if (tiles)
      return with_tile_dim(a.head_dim, [&](auto dim) {
        constexpr int kDim = decltype(dim)::value;
        launch_blocks("cached_attention", forward_kernel<T, kDim, false, PagedSource<T>>, places,
                      kForwardThreads, forward_shared_bytes<kDim>(), call, source, out, no_lse);
      });
  }
  with_simt_groups(a.head_dim, [&](auto groups) {
    constexpr int kGroups = decltype(groups)::value;
    const int64_t slices = simt_slices(a.head_dim, kGroups);
    launch_blocks("cached_attention", simt_forward_kernel<T, kGroups, PagedSource<T>>, places * slices,
                  kSimtThreads, sizeof(SimtMemory<kGroups>), call, source, static_cast<int>(slices), out,
                  no_lse);
  });
}

template <class T>
void decode(const cpu::CachedAttentionArgs& args, bool tiles, T* out) {
  const cpu::AttentionArgs& a = args.attention;
  const AttentionCall call = attention_call(a, 1);
  const PagedSource<T> source(args);
  DecodeCall decode{};
  decode.max_queries =
      static_cast<int>(std::max<int64_t>(call.group, std::min<int64_t>(8, a.longest * call.group)));
  // Chunks are a multiple of 256 keys, and at most kDecodeChunks.
  decode.chunks = static_cast<int>(std::min<int64_t>(kDecodeChunks, divide_up(args.longest_keys, 256)));
  const int in_block = tiles ? kDecodeRows : kSimtDecodeQueries;
  decode.query_blocks = (decode.max_queries + in_block - 1) / in_block;
  const int64_t places = args.sequences * a.kv_heads * decode.query_blocks * decode.chunks,
                merges = args.sequences * a.kv_heads * decode.max_queries;
  Scratch partials(
      decode.chunks > 1 ? static_cast<size_t>(merges * decode.chunks * (a.head_dim + 2)) * sizeof(float) : 1);
  decode.partials = partials.as<float>();
  const auto by_multiply_adds = [&] {
    launch_blocks("cached_attention", simt_decode_kernel<T>, places, kDecodeThreads,
                  simt_decode_shared_bytes(a.head_dim), call, source, decode, out);
  };
  if constexpr (sizeof(T) == 2) {
    if (tiles)
      with_tile_dim(a.head_dim, [&](auto dim) {
        constexpr int kDim = decltype(dim)::value;
        launch_blocks("cached_attention", decode_kernel<T, kDim>, places, kDecodeThreads,
                      decode_shared_bytes<kDim>(), call, source, decode, out);
      });
    else
      by_multiply_adds();
  } else {
    by_multiply_adds();
  }
  if (decode.chunks > 1)
    launch_blocks("cached_attention", merge_decode_kernel<T>, divide_up(merges, kDecodeWarps), kDecodeThreads,
                  0, call, source, decode, merges, out);
}

}  // namespace

void write_cache(const cpu::CachedAttentionArgs& args) {
  const cpu::AttentionArgs& a = args.attention;
  if (a.rows == 0) return;
  const AttentionCall call = attention_call(a, 1);
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const PagedSource<T> source(args);
    const auto write = [&](auto* piece_tag) {
      using Piece = std::remove_pointer_t<decltype(piece_tag)>;
      const int64_t pieces =
                        a.head_dim * static_cast<int64_t>(sizeof(T)) / static_cast<int64_t>(sizeof(Piece)),
                    count = a.rows * a.kv_heads * pieces;
      launch_blocks("write_cache", write_cache_kernel<T, Piece>, divide_up(count, kWriteThreads),
                    kWriteThreads, 0, call, source, static_cast<int>(args.sequences), count,
                    static_cast<int>(pieces));
    };
    const bool vectors = a.head_dim * sizeof(T) % 16 == 0 &&
                         ((reinterpret_cast<uintptr_t>(a.qkv) | reinterpret_cast<uintptr_t>(args.keys) |
                           reinterpret_cast<uintptr_t>(args.values)) &
                          15) == 0;
    if (vectors)
      write(static_cast<uint4*>(nullptr));
    else
      write(static_cast<T*>(nullptr));
  });
}

void cached_attention(const cpu::CachedAttentionArgs& args, void* out) {
  const cpu::AttentionArgs& a = args.attention;
  if (a.rows == 0) return;
  TRIREME_ASSERT(args.sequences > 0 && a.longest > 0 && args.longest_keys >= a.longest);
  const bool tiles = fits_tiles(a.dtype, a.head_dim, {a.qkv, args.keys, args.values, out});
  // The most rows that a sequence may have; of one sequence alone it is known, else some may have fewer.
  const int64_t longest = args.sequences == 1 ? a.rows : std::min(a.longest, a.rows);
  const bool all_decode = decodes(static_cast<int>(longest), static_cast<int>(a.q_heads / a.kv_heads));
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    if (!all_decode) prefill(args, tiles, static_cast<T*>(out));
    if (all_decode || args.sequences > 1) decode(args, tiles, static_cast<T*>(out));
  });
}

}  // namespace trireme::cuda
