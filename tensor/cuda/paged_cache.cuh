// The paged cache (contract: tensor/ops/cached_attention.h) as kernels find their way in it.
#pragma once

#include "tensor/cpu/cached_attention.h"
#include "tensor/cuda/attention_tile.cuh"

namespace trireme::cuda {

// Division by a number that is known before the launch, of dividends below 2^31: a product's high half and a
// shift. Granlund & Montgomery 1994, doi:10.1145/178243.178249.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int divisor) : divisor_(divisor) {
    int log = 0;  // rounded up
    while ((int64_t{1} << log) < divisor) ++log;
    factor_ = static_cast<uint32_t>(((uint64_t{1} << (31 + log)) + static_cast<uint64_t>(divisor) - 1) /
                                    static_cast<uint64_t>(divisor));
    shift_ = log - 1;
  }
  __device__ __forceinline__ int divide(int n) const {
    return divisor_ == 1 ? n : static_cast<int>(__umulhi(static_cast<uint32_t>(n), factor_) >> shift_);
  }
  __device__ __forceinline__ int value() const { return divisor_; }

 private:
  int divisor_ = 1, shift_ = 0;
  uint32_t factor_ = 0;
};

inline constexpr int kDecodeChunks =
    32;  // that a sequence's keys are cut into at most: one lane each merges them
// Keys in a chunk of a sequence that has `keys`: a multiple of 256, and not 0 where it has none.
__host__ __device__ constexpr int decode_chunk(int keys) {
  return 256 * (1 + (keys > 0 ? keys - 1 : 0) / (256 * kDecodeChunks));
}
// Whether a sequence with `rows` new rows streams its cache.
__host__ __device__ constexpr bool decodes(int rows, int group) { return rows == 1 || rows * group <= 8; }

// The cache as forward_kernel's source of keys, for the sequences that do not decode.
template <class T>
struct PagedSource {
  T *keys, *values;
  const int32_t* lengths;
  const int32_t* block_table;
  int max_blocks;
  Divisor block_size;

  explicit PagedSource(const cpu::CachedAttentionArgs& a)
      : keys(static_cast<T*>(a.keys)),
        values(static_cast<T*>(a.values)),
        lengths(a.lengths),
        block_table(a.block_table),
        max_blocks(static_cast<int>(a.max_blocks)),
        block_size(static_cast<int>(a.block_size)) {}

  // One key head of one sequence.
  struct Keys {
    T *keys, *values;
    const int32_t* table;
    Divisor block_size;
    int kv_heads, kv_head, dim;
    // Where token t's row begins, in keys and in values.
    __device__ __forceinline__ int64_t at(int t) const {
      const int block = block_size.divide(t), row = t - block * block_size.value();
      return ((int64_t{table[block]} * kv_heads + kv_head) * block_size.value() + row) * dim;
    }
    __device__ __forceinline__ const T* key(int t) const { return keys + at(t); }
    __device__ __forceinline__ const T* value(int t) const { return values + at(t); }
  };
  __device__ __forceinline__ int past(const AttentionCall&, int sequence) const { return lengths[sequence]; }
  __device__ __forceinline__ bool skips(const AttentionCall& call, int rows) const {
    return decodes(rows, call.group);
  }
  __device__ __forceinline__ Keys open(const AttentionCall& call, int sequence, int kv_head) const {
    return {keys,    values,       block_table + int64_t{sequence} * max_blocks, block_size, call.kv_heads,
            kv_head, call.head_dim};
  }
};

}  // namespace trireme::cuda
