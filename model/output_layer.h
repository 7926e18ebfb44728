// The vocabulary projection at a language model's end, tied to the token embedding or of its own.
#pragma once

#include "model/transformer.h"

namespace trireme {

class OutputLayer {
 public:
  // `tied`: the embedding if the config ties them and it is on this rank; if it ties them and this is null, the layer holds
  // the copy whose gradient is summed with the first stage's.
  // `bias`: its name in the file; empty: none.
  OutputLayer(const LayerContext& context, const std::string& file_name, const ModelConfig& config, Parameter* tied,
              const std::string& bias = "");

  // x: the last norm's output, [T or T/n, D].
  TokenLoss loss(const Tensor& x, const PassContext& pass) const;
  // Of some rows, [R, D], that every tensor rank has and uses alike, with their labels i32 [R].
  TokenLoss loss_of_rows(const Tensor& x, const Tensor& labels, double loss_scale) const;
  // [rows, D]: chosen rows of all T, from any x with the layer's rows. For generation, as is logits().
  Tensor rows_of(const Tensor& x, const std::vector<int64_t>& rows) const;
  // x [rows, D] -> f32 [rows, vocabulary], on every tensor rank.
  Tensor logits(const Tensor& x) const;

 private:
  Communicator& tp_;
  bool split_rows_;
  VocabularySplit split_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

}  // namespace trireme
