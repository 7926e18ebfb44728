// The paged key-value cache of one rank (Kwon et al. 2023, arXiv:2309.06180): blocks of tokens, lent to
// sequences and given back. Every rank of a mesh keeps the same books, since all make the same calls.
#pragma once

#include <vector>

#include "model/sharded_model.h"
#include "tensor/ops/cached_attention.h"

namespace trireme {

class KvCache {
 public:
  // Blocks for the layers of this rank's chunks, in the weights' dtype.
  KvCache(const ShardedModel& model, int64_t num_blocks, int64_t block_size);

  int64_t block_size() const { return block_size_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  const std::vector<KvBlocks>& layers() const {
    return layers_;
  }  // by global layer; undefined where not of this rank

  // REQUIRES: count <= num_free().
  std::vector<int32_t> take(int64_t count);
  void give_back(const std::vector<int32_t>& blocks);

 private:
  int64_t block_size_;
  std::vector<KvBlocks> layers_;
  std::vector<int32_t> free_;
};

}  // namespace trireme
