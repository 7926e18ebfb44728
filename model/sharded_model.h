// The part of a model that one rank of a mesh holds: its chunks, their parameters, and how they map to model files.
#pragma once

#include <memory>
#include <vector>

#include "model/transformer.h"
#include "parallel/mesh.h"

namespace trireme {

struct ModelLayout {
  int chunks = 1;                     // virtual stages a rank (interleaved pipelines)
  std::vector<int> layers_per_stage;  // layers of each virtual stage in order; empty: balanced
  bool sequence_parallel = false;
  bool fp8 = false;  // LayerContext::fp8
};

class ShardedModel {
 public:
  // Throws ConfigError where the layout does not fit the model. Takes no memory for weights: see ParameterBuckets (training)
  // and allocate_values() (inference). `mesh` outlives this.
  // `device`: where its weights will be, and what it computes.
  ShardedModel(const ModelConfig& config, const Mesh& mesh, const ModelLayout& layout, Device device = Device::cpu());

  const ModelConfig& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }
  const ModelLayout& layout() const { return layout_; }
  Device device() const { return device_; }
  const ParameterList& parameters() const { return parameters_; }
  const std::vector<std::unique_ptr<ModelChunk>>& chunks() const { return chunks_; }

  // Initial values from the seed, the same at every layout. REQUIRES: values allocated.
  void initialize(uint64_t seed);

  // Shape of the hidden states that leave a chunk for `tokens` tokens of a micro-batch.
  Shape activation_shape(int64_t tokens) const;

  int64_t global_num_parameters() const;  // of the whole model, tied weights once. Collective over the mesh.

 private:
  ModelConfig config_;
  const Mesh& mesh_;
  ModelLayout layout_;
  Device device_;
  ParameterList parameters_;
  std::vector<std::unique_ptr<ModelChunk>> chunks_;
};

}  // namespace trireme
