#include "tensor/cuda/attention.h"
#include "tensor/cuda/attention_backward.cuh"
#include "tensor/cuda/attention_backward_simt.cuh"

namespace trireme::cuda {
namespace {

constexpr int kDeltaThreads = 256, kDeltaLanes = 8;  // lanes that share a row of a head

// delta[row * q_heads + head] = sum over the head's elements of d_out * out.
template <class T, bool kVectors>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(const T* d_out, const T* out, int64_t count, int head_dim, float* delta) {
  constexpr int kWidth = 16 / sizeof(T);
  const int64_t index = (int64_t{blockIdx.x} * kDeltaThreads + threadIdx.x) / kDeltaLanes;
  const int part = static_cast<int>(threadIdx.x) % kDeltaLanes;
  const int64_t row = index < count ? index : count - 1;  // every lane takes part in the exchange
  float sum = 0;
  if constexpr (kVectors) {
    struct alignas(16) Piece {
      T element[kWidth];
    };
    for (int d = part * kWidth; d < head_dim; d += kDeltaLanes * kWidth) {
      const Piece a = *reinterpret_cast<const Piece*>(d_out + row * head_dim + d),
                  b = *reinterpret_cast<const Piece*>(out + row * head_dim + d);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum += widen(a.element[i]) * widen(b.element[i]);
    }
  } else {
    for (int d = part; d < head_dim; d += kDeltaLanes)
      sum += widen(d_out[row * head_dim + d]) * widen(out[row * head_dim + d]);
  }
#pragma unroll
  for (int with = 1; with < kDeltaLanes; with *= 2) sum += swap_lanes(sum, with);
  if (part == 0 && index < count) delta[index] = sum;
}

template <class T>
void compute_delta(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad, float* delta) {
  const int64_t count = args.rows * args.q_heads;
  const bool vectors = args.head_dim * sizeof(T) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(grad.d_out) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(grad.out) % 16 == 0;
  launch_blocks("attention_backward", vectors ? delta_kernel<T, true> : delta_kernel<T, false>,
                divide_up(count * kDeltaLanes, kDeltaThreads), kDeltaThreads, 0,
                static_cast<const T*>(grad.d_out), static_cast<const T*>(grad.out), count,
                static_cast<int>(args.head_dim), delta);
}

void backward(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad, bool queries, bool keys) {
  if (args.rows == 0) return;
  TRIREME_ASSERT(args.segments > 0 && args.longest > 0);
  Scratch delta(static_cast<size_t>(args.rows * args.q_heads) * sizeof(float));
  const BackwardCall back{grad.d_out, grad.lse, delta.as<float>(), grad.d_qkv};
  const bool tiles = fits_tiles(args.dtype, args.head_dim, {args.qkv, grad.d_out, grad.d_qkv});
  const AttentionCall call = attention_call(args, tiles ? BackwardShape<64>::kRows : kSimtTile);
  const int64_t query_places = args.segments * args.q_heads * call.blocks,
                key_places = args.segments * args.kv_heads * call.blocks;
  with_float_type(args.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    compute_delta<T>(args, grad, delta.as<float>());
    if constexpr (sizeof(T) == 2) {
      if (tiles)
        return with_tile_dim(args.head_dim, [&](auto dim) {
          constexpr int kDim = decltype(dim)::value;
          using Shape = BackwardShape<kDim>;
          if (queries)
            launch_blocks("attention_backward_queries",
                          args.dropout ? backward_queries_kernel<T, kDim, true>
                                       : backward_queries_kernel<T, kDim, false>,
                          query_places, Shape::kQueryThreads, Shape::kQueryBytes, call, back);
          if (keys)
            launch_blocks(
                "attention_backward_keys",
                args.dropout ? backward_keys_kernel<T, kDim, true> : backward_keys_kernel<T, kDim, false>,
                key_places, Shape::kKeyThreads, Shape::kKeyBytes, call, back);
        });
    }
    with_simt_groups(args.head_dim, [&](auto groups) {
      constexpr int kGroups = decltype(groups)::value;
      const int64_t slices = simt_slices(args.head_dim, kGroups);
      if (queries)
        launch_blocks("attention_backward_queries", simt_backward_queries_kernel<T, kGroups>,
                      query_places * slices, kSimtThreads, sizeof(SimtMemory<kGroups>), call, back,
                      static_cast<int>(slices));
      if (keys)
        launch_blocks("attention_backward_keys", simt_backward_keys_kernel<T, kGroups>, key_places * slices,
                      kSimtThreads, sizeof(SimtMemory<kGroups>), call, back, static_cast<int>(slices));
    });
  });
}

}  // namespace

void attention_backward(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                        const cpu::AttentionItem*, int64_t) {
  backward(args, grad, true, true);
}
void attention_backward_queries(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                                const cpu::AttentionItem*, int64_t) {
  backward(args, grad, true, false);
}
void attention_backward_keys(const cpu::AttentionArgs& args, const cpu::AttentionGradArgs& grad,
                             const cpu::AttentionItem*, int64_t) {
  backward(args, grad, false, true);
}

}  // namespace trireme::cuda
