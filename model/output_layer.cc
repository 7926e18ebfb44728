#include "model/output_layer.h"

#include "parallel/tensor_collectives.h"

namespace trireme {

OutputLayer::OutputLayer(const LayerContext& context, const std::string& file_name, const ModelConfig& config,
                         Parameter* tied, const std::string& bias)
    : tp_(context.tp), split_rows_(context.split_rows()), split_(config.vocab_size, context.tp), weight_(tied) {
  if (!weight_) {
    VocabularyEmbedding layer(context, file_name, config.vocab_size, config.hidden_size, config.initializer_range);
    weight_ = &layer.weight();
    if (config.ties_output()) weight_->tied = weight_->tied_copy = true;
  }
  if (bias.empty()) return;
  Parameter p;
  p.shape = {split_.per_rank};
  if (split_.valid > 0) p.pieces.push_back({bias, {config.vocab_size}, {{split_.first}, {split_.valid}}, false, 0});
  bias_ = context.parameters.add(std::move(p));
}

TokenLoss OutputLayer::loss(const Tensor& x, const PassContext& pass) const {
  // Each rank's gradient of x covers its part of the vocabulary: both functions sum them in backward.
  Tensor whole = split_rows_ ? gather_rows(x, tp_) : copy_to_tensor_ranks(x, tp_);
  return vocabulary_loss(whole, weight_->value, pass.batch.labels, split_, pass.loss_scale, tp_,
                         bias_ ? bias_->value : Tensor());
}

TokenLoss OutputLayer::loss_of_rows(const Tensor& x, const Tensor& labels, double loss_scale) const {
  return vocabulary_loss(copy_to_tensor_ranks(x, tp_), weight_->value, labels, split_, loss_scale, tp_,
                         bias_ ? bias_->value : Tensor());
}

Tensor OutputLayer::rows_of(const Tensor& x, const std::vector<int64_t>& rows) const {
  const Tensor whole = split_rows_ ? gather_rows(x.detach(), tp_) : x.detach();
  Tensor chosen = empty({static_cast<int64_t>(rows.size()), whole.dim(1)}, whole.dtype(), whole.device());
  for (size_t i = 0; i < rows.size(); ++i)
    copy(whole.rows(rows[i], rows[i] + 1), chosen.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1));
  return chosen;
}

Tensor OutputLayer::logits(const Tensor& x) const {
  return vocabulary_logits(x, weight_->value, split_, tp_, bias_ ? bias_->value : Tensor());
}

}  // namespace trireme
