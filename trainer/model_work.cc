#include "trainer/model_work.h"

#include <algorithm>

#include "parallel/tensor_collectives.h"
#include "tensor/ops/cross_entropy.h"

namespace trireme {

ModelWork::ModelWork(const ShardedModel& model, const std::vector<TokenBatch>& batches,
                     const PassContext& pass, ParameterBuckets* buckets, const ActivityFn& activity,
                     OpObserver* observer)
    : model_(model),
      batches_(batches),
      pass_(pass),
      buckets_(buckets),
      activity_(activity),
      observer_(observer) {
  if (!buckets) return;
  hooks_.begins = [this](int group) { buckets_->group_begins(group); };
  hooks_.done = [this](int group) { buckets_->group_done(group, last_); };
}

Shape ModelWork::activation_shape(int micro_batch) const {
  return model_.activation_shape(batches_[micro_batch].tokens());
}
DType ModelWork::activation_dtype() const { return model_.parameters().all()[0]->value.dtype(); }
Device ModelWork::device() const { return model_.parameters().all()[0]->value.device(); }

Tensor ModelWork::forward(int micro_batch, int chunk, const Tensor& x, Tape* tape) {
  PassContext pass{batches_[micro_batch], pass_.recompute, pass_.dropout, pass_.dropout_seed,
                   pass_.loss_scale};
  pass.sequence_loss_scale = pass_.sequence_loss_scale;
  pass.loss_options = pass_.loss_options;
  Tensor out;
  if (outputs_) pass.outputs = &out;
  TokenLoss loss;
  Tensor y = model_.chunks()[chunk]->forward(x, pass, tape, hooks_, &loss);
  if (out.defined()) outputs_->push_back(out);
  losses_.push_back(std::move(loss.totals));
  return y;
}

void ModelWork::backward_begins(int, int, bool last) { last_ = last; }
void ModelWork::backward_done(int, int chunk, bool last) {
  if (buckets_) buckets_->group_done(model_.chunks()[chunk]->first_group(), last);
}
void ModelWork::activity(const std::string& what) {
  if (activity_) activity_(what);
}

double ModelWork::loss_sum() const {
  double sum = 0;
  for (const VocabularyTotals& totals : losses_) sum += totals.get().loss;
  return sum;
}

LabelCounts count_labels(const std::vector<TokenBatch>& micro_batches, const ShardedModel& model,
                         const LossOptions& loss) {
  LabelCounts n;
  const bool decoder = is_decoder(model.config());
  for (const TokenBatch& b : micro_batches) {
    const double labels = b.labels.defined() ? loss_weight(b, loss.class_weights) : 0;
    n.labels += labels;
    n.tokens += decoder ? labels : static_cast<double>(b.tokens());
    if (!b.sequence_labels.defined()) continue;
    for (const int32_t label : b.sequence_labels.span<int32_t>()) n.sequences += label != kIgnoreLabel;
  }
  const auto sums = sum_over(model.mesh().dp(), {n.labels, n.sequences, n.tokens});
  return {sums[0], sums[1], sums[2]};
}

std::vector<TokenBatch> batches_beside(const ShardedModel& model, const std::vector<TokenBatch>& batches) {
  std::vector<TokenBatch> there;
  for (const TokenBatch& b : batches) there.push_back(batch_on(model.device(), b, model.config()));
  return there;
}

}  // namespace trireme
