#include "tensor/ops/cached_attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/cpu/cached_attention.h"
#include "tensor/cuda/cached_attention.h"
#include "tensor/on_device.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

// Few enough queries share a key head for streaming the keys to beat tiles, most of which would be padding.
bool streams(int64_t rows, const HeadLayout& layout) {
  return rows == 1 || rows * (layout.q_heads / layout.kv_heads) <= 8;
}

void check_cache(const Tensor& qkv, const HeadLayout& layout, const KvBlocks& cache, const CacheView& view) {
  for (const Tensor* t : {&cache.keys, &cache.values}) {
    const char* name = t == &cache.keys ? "keys" : "values";
    check(t->defined() && t->rank() == 4 && t->dim(1) == layout.kv_heads && t->dim(2) == view.block_size &&
              t->dim(3) == layout.head_dim && t->dim(0) == cache.keys.dim(0),
          "cached_attention: ", name, " are ", *t, "; they must be [blocks,", layout.kv_heads, ",",
          view.block_size, ",", layout.head_dim, "]");
    check(t->dtype() == qkv.dtype() && t->device() == qkv.device(), "cached_attention: ", name, " are ", *t,
          ", qkv is ", qkv, "; dtype and device must be the same");
  }
  check_on_host("cached_attention", "lengths", view.lengths);
  check_on_host("cached_attention", "block_table", view.block_table);
  check(view.block_size > 0, "cached_attention: block_size is ", view.block_size, "; it must be positive");
  const int64_t sequences = view.rows.count();
  check(view.lengths.defined() && view.lengths.dtype() == DType::kI32 &&
            view.lengths.shape() == Shape{sequences},
        "cached_attention: lengths are ", view.lengths, "; ", sequences, " sequences need i32[", sequences,
        "]");
  check(view.block_table.defined() && view.block_table.dtype() == DType::kI32 &&
            view.block_table.rank() == 2 && view.block_table.dim(0) == sequences,
        "cached_attention: block_table is ", view.block_table, "; ", sequences, " sequences need i32[",
        sequences, ",blocks]");

  const int32_t* starts = view.rows.starts.data<int32_t>();
  const int32_t* lengths = view.lengths.data<int32_t>();
  const int64_t max_blocks = view.block_table.dim(1);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t rows = starts[s + 1] - starts[s];
    check(lengths[s] >= 0, "cached_attention: sequence ", s, " has length ", lengths[s]);
    if (rows == 0) continue;
    const int64_t total = lengths[s] + rows, blocks = (total - 1) / view.block_size + 1;
    check(blocks <= max_blocks, "cached_attention: sequence ", s, " has ", total, " tokens and needs ",
          blocks, " blocks of ", view.block_size, ", but its block table has ", max_blocks);
    const int32_t* table = view.block_table.data<int32_t>() + s * max_blocks;
    for (int64_t b = 0; b < blocks; ++b)
      check(table[b] >= 0 && table[b] < cache.keys.dim(0), "cached_attention: block_table[", s, "][", b,
            "] is ", table[b], "; the cache has blocks 0..", cache.keys.dim(0) - 1);
  }
}

// `there`, checked, or else a copy of `here`, where x is.
Tensor beside(const char* name, const Tensor& there, const Tensor& here, const Tensor& x) {
  if (!there.defined()) return to_device(here, x.device());
  check(there.shape() == here.shape() && there.dtype() == here.dtype(), "cached_attention: ", name, " are ", there,
        ", those on the cpu ", here);
  check_one_device("cached_attention", name, there, "qkv", x);
  return there;
}

// `args` point to host memory as yet.
Tensor on_cuda(const Tensor& qkv, const HeadLayout& layout, const CacheView& view, int64_t longest,
               cpu::CachedAttentionArgs args) {
  require_selected(qkv.device());
  const Tensor starts = starts_beside("cached_attention", view.rows, qkv);
  const Tensor lengths = beside("device_lengths", view.device_lengths, view.lengths, qkv),
               table = beside("device_block_table", view.device_block_table, view.block_table, qkv);
  for (int64_t s = 0; s < args.sequences; ++s)
    args.longest_keys =
        std::max<int64_t>(args.longest_keys, args.lengths[s] + args.attention.starts[s + 1] - args.attention.starts[s]);
  args.attention.starts = starts.data<int32_t>();
  args.attention.rows = qkv.dim(0);
  args.attention.segments = args.sequences;
  args.attention.longest = longest;
  args.lengths = lengths.data<int32_t>();
  args.block_table = table.data<int32_t>();
  Tensor out = empty({qkv.dim(0), layout.q_heads * layout.head_dim}, qkv.dtype(), qkv.device());
  cuda::write_cache(args);
  cuda::cached_attention(args, out.raw());
  return out;
}

}  // namespace

Tensor cached_attention(const Tensor& qkv, const HeadLayout& layout, const KvBlocks& cache,
                        const CacheView& view, float scale) {
  check_heads("cached_attention", qkv, layout);
  check(!qkv.tape(),
        "cached_attention: qkv is a variable of a tape; the cache is for inference, train with attention");
  const int64_t longest = check_segments("cached_attention", view.rows, qkv.dim(0));
  check(std::isfinite(scale) && scale >= 0, "cached_attention: scale is ", scale,
        "; it must be positive, or 0 for 1/sqrt(head_dim)");
  check_cache(qkv, layout, cache, view);

  cpu::CachedAttentionArgs args{};
  args.keys = cache.keys.raw();
  args.values = cache.values.raw();
  args.lengths = view.lengths.data<int32_t>();
  args.block_table = view.block_table.data<int32_t>();
  args.sequences = view.rows.count();
  args.max_blocks = view.block_table.dim(1);
  args.block_size = view.block_size;
  cpu::AttentionArgs& a = args.attention;
  a.qkv = qkv.raw();
  a.dtype = qkv.dtype();
  a.q_heads = layout.q_heads;
  a.kv_heads = layout.kv_heads;
  a.head_dim = layout.head_dim;
  a.starts = view.rows.starts.data<int32_t>();
  a.causal = true;
  a.scale = scale > 0 ? scale : 1.0f / std::sqrt(static_cast<float>(layout.head_dim));

  if (!on_host(qkv)) return on_cuda(qkv, layout, view, longest, args);

  // Blocks of queries first: they take longest.
  std::vector<cpu::CachedItem> items, chunks;
  std::vector<cpu::CachedMerge> merges;
  int64_t queries = 0;
  double keys_read = 0;  // by all items together
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t rows = a.starts[s + 1] - a.starts[s];
    if (rows == 0) continue;
    const auto sequence = static_cast<int32_t>(s);
    const int64_t reads = streams(rows, layout) ? layout.kv_heads : layout.q_heads;
    keys_read += static_cast<double>((rows + args.lengths[s]) * reads);
    if (!streams(rows, layout)) {
      for (int32_t h = 0; h < layout.q_heads; ++h)
        for (auto b = static_cast<int32_t>((rows - 1) / cpu::kAttentionTile); b >= 0; --b)
          items.push_back({sequence, h, b, -1});
      continue;
    }
    queries = std::max(queries, rows * (layout.q_heads / layout.kv_heads));
    const auto count = static_cast<int32_t>((args.lengths[s] + rows - 1) / cpu::kDecodeChunk + 1);
    for (int32_t h = 0; h < layout.kv_heads; ++h) {
      merges.push_back({sequence, h, static_cast<int32_t>(chunks.size()), count});
      for (int32_t c = 0; c < count; ++c)
        chunks.push_back({sequence, h, c, static_cast<int32_t>(chunks.size())});
    }
  }
  items.insert(items.end(), chunks.begin(), chunks.end());
  args.items = items.data();
  args.num_items = static_cast<int64_t>(items.size());
  args.merges = merges.data();
  args.num_merges = static_cast<int64_t>(merges.size());

  // One thread if the others are not worth waking; else all of them, since OpenMP ends the threads that a smaller team
  // leaves out and a later region would have to start them again.
  constexpr double kWorthAThread = 32e3;
  const double useful = std::min(static_cast<double>(items.size()),
                                 keys_read * static_cast<double>(layout.head_dim) / kWorthAThread);
  a.threads = useful < 2 ? 1 : omp_get_max_threads();
  a.scratch_stride = cpu::attention_padded(cpu::cached_attention_scratch(layout.head_dim, queries), 16);
  Tensor scratch = empty({a.threads, a.scratch_stride}, DType::kF32);
  a.scratch = scratch.data<float>();
  args.partial_stride = cpu::cached_partial_floats(layout.head_dim, queries);
  Tensor partials = empty({static_cast<int64_t>(chunks.size()), args.partial_stride}, DType::kF32);
  args.partials = partials.data<float>();

  Tensor out = empty({qkv.dim(0), layout.q_heads * layout.head_dim}, qkv.dtype(), qkv.device());
  cpu::write_cache(args);
  cpu::cached_attention(args, out.raw());
  return out;
}

}  // namespace trireme
