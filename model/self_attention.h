// Attention among the tokens of each sequence, as every block has it.
#pragma once

#include "model/transformer.h"
#include "tensor/ops/attention.h"

namespace trireme {

class SelfAttention {
 public:
  // The heads are split over the tensor ranks. Throws ConfigError where they do not divide.
  // `causal`: a token sees none after it (decoders).
  SelfAttention(const LayerContext& context, const ModelConfig& config, int layer, bool causal = true);

  const HeadLayout& heads() const { return heads_; }  // this rank's
  // qkv [T, H+2K], rotated already where a model rotates. Returns [T, H]. In training with dropout on the attention
  // weights; with a cache, new keys and values are written to it, and attention is over all that it holds.
  Tensor operator()(const Tensor& qkv, const PassContext& pass) const;

 private:
  Communicator& tp_;
  int layer_;
  HeadLayout heads_;
  double dropout_;
  bool causal_;
};

}  // namespace trireme
