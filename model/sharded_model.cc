#include "model/sharded_model.h"

#include "parallel/layer_partition.h"
#include "parallel/schedule.h"
#include "parallel/tensor_collectives.h"
#include "tensor/ops/fp8_linear.h"

namespace trireme {

ShardedModel::ShardedModel(const ModelConfig& config, const Mesh& mesh, const ModelLayout& layout,
                           Device device)
    : config_(config), mesh_(mesh), layout_(layout), device_(device) {
  if (layout.fp8) require_fp8_products(device);
  const ScheduleShape shape{mesh.shape().pp, 1, layout.chunks};
  const int pieces = num_virtual_stages(shape);
  const int layers = static_cast<int>(config.num_hidden_layers);
  const auto ranges = layout.layers_per_stage.empty() ? partition_layers(layers, pieces)
                                                      : partition_layers(layers, pieces, layout.layers_per_stage);
  const LayerContext context{parameters_, mesh.tp(), layout.sequence_parallel, device, layout.fp8};
  int group = 0;
  for (int chunk = 0; chunk < layout.chunks; ++chunk) {
    const int v = virtual_stage(shape, mesh.pp().rank(), chunk);
    const ChunkSpec spec{ranges[v].begin, ranges[v].end, v == 0, v == pieces - 1};
    Parameter* tied = config.ties_output() && !chunks_.empty() ? chunks_[0]->token_weight() : nullptr;
    chunks_.push_back(std::make_unique<ModelChunk>(context, config_, spec, chunk, group, tied));
    group += chunks_.back()->num_groups();
  }
  if (config.ties_output() && mesh.shape().pp > 1)
    if (Parameter* weight = chunks_[0]->token_weight()) weight->tied = true;
}

void ShardedModel::initialize(uint64_t seed) {
  for (const auto& p : parameters_.all()) trireme::initialize(*p, seed);
}

Shape ShardedModel::activation_shape(int64_t tokens) const {
  const bool split = layout_.sequence_parallel && mesh_.tp().size() > 1;
  return {split ? tokens / mesh_.tp().size() : tokens, config_.hidden_size};
}

int64_t ShardedModel::global_num_parameters() const {
  double mine = 0;
  for (const auto& p : parameters_.all())
    if (!p->tied_copy && (!p->tp_replicated || mesh_.tp().rank() == 0))
      for (const Piece& piece : p->pieces) mine += static_cast<double>(piece.box.numel());
  return static_cast<int64_t>(sum_over(mesh_.pp(), sum_over(mesh_.tp(), {mine}))[0]);
}

}  // namespace trireme
