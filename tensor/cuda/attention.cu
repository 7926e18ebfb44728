#include "tensor/cuda/attention.h"
#include "tensor/cuda/attention_forward.cuh"
#include "tensor/cuda/attention_simt.cuh"

namespace trireme::cuda {

void attention_forward(const cpu::AttentionArgs& args, const cpu::AttentionItem*, int64_t, void* out,
                       float* lse) {
  if (args.rows == 0) return;
  TRIREME_ASSERT(args.segments > 0 && args.longest > 0);
  const bool tiles = fits_tiles(args.dtype, args.head_dim, {args.qkv, out});
  const AttentionCall call = attention_call(args, tiles ? kForwardRows : kSimtTile);
  const int64_t places = args.segments * args.q_heads * call.blocks;
  with_float_type(args.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* rows = static_cast<T*>(out);
    const PackedSource<T> source;
    if constexpr (sizeof(T) == 2) {
      if (tiles)
        return with_tile_dim(args.head_dim, [&](auto dim) {
          constexpr int kDim = decltype(dim)::value;
          launch_blocks("attention_forward",
                        args.dropout ? forward_kernel<T, kDim, true, PackedSource<T>>
                                     : forward_kernel<T, kDim, false, PackedSource<T>>,
                        places, kForwardThreads, forward_shared_bytes<kDim>(), call, source, rows, lse);
        });
    }
    with_simt_groups(args.head_dim, [&](auto groups) {
      constexpr int kGroups = decltype(groups)::value;
      const int64_t slices = simt_slices(args.head_dim, kGroups);
      launch_blocks("attention_forward", simt_forward_kernel<T, kGroups, PackedSource<T>>, places * slices,
                    kSimtThreads, sizeof(SimtMemory<kGroups>), call, source, static_cast<int>(slices), rows,
                    lse);
    });
  });
}

}  // namespace trireme::cuda
