#include "inference/kv_cache.h"

namespace trireme {

KvCache::KvCache(const ShardedModel& model, int64_t num_blocks, int64_t block_size)
    : block_size_(block_size) {
  const ModelConfig& config = model.config();
  const Shape shape{num_blocks, config.num_key_value_heads / model.mesh().tp().size(), block_size,
                    config.head_dim};
  const Tensor& like = model.parameters().all()[0]->value;
  layers_.resize(config.num_hidden_layers);
  for (const auto& chunk : model.chunks())
    for (int layer = chunk->spec().first_layer; layer < chunk->spec().last_layer; ++layer)
      layers_[layer] = {empty(shape, like.dtype(), like.device()), empty(shape, like.dtype(), like.device())};
  for (int64_t b = num_blocks; b-- > 0;) free_.push_back(static_cast<int32_t>(b));
}

std::vector<int32_t> KvCache::take(int64_t count) {
  TRIREME_ASSERT(count <= num_free());
  std::vector<int32_t> blocks(free_.end() - count, free_.end());
  free_.resize(free_.size() - count);
  return blocks;
}

void KvCache::give_back(const std::vector<int32_t>& blocks) {
  free_.insert(free_.end(), blocks.begin(), blocks.end());
}

}  // namespace trireme
