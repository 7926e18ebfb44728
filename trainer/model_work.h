// What the pipeline's executor drives: the chunks of a rank's model, with the gradient buckets hung on their
// backward.
#pragma once

#include <vector>

#include "model/sharded_model.h"
#include "parallel/buckets.h"
#include "parallel/executor.h"
#include "trainer/evaluate.h"

namespace trireme {

class ModelWork final : public StageWork {
 public:
  // References outlive this. `pass`: of every micro-batch, its batch aside. buckets: null without a backward.
  ModelWork(const ShardedModel& model, const std::vector<TokenBatch>& batches, const PassContext& pass,
            ParameterBuckets* buckets, const ActivityFn& activity, OpObserver* observer);

  Shape activation_shape(int micro_batch) const override;
  DType activation_dtype() const override;
  Device device() const override;
  Tensor forward(int micro_batch, int chunk, const Tensor& x, Tape* tape) override;
  void backward_begins(int micro_batch, int chunk, bool last) override;
  void backward_done(int micro_batch, int chunk, bool last) override;
  void activity(const std::string& what) override;
  OpObserver* observer() override { return observer_; }

  // Where the outputs of the last stage's forwards go, in their order; null: they are not wanted.
  void want(std::vector<Tensor>* outputs) { outputs_ = outputs; }
  // Of the forwards so far, in their order.
  double loss_sum() const;

 private:
  const ShardedModel& model_;
  const std::vector<TokenBatch>& batches_;
  const PassContext& pass_;
  ParameterBuckets* buckets_;
  const ActivityFn& activity_;
  OpObserver* observer_;
  GroupHooks hooks_;
  bool last_ = false;
  std::vector<Tensor>* outputs_ = nullptr;
  std::vector<VocabularyTotals> losses_;
};

// What a global batch holds: sums over its data ranks.
struct LabelCounts {
  double labels = 0;     // loss_weight()
  double sequences = 0;  // labels of whole sequences
  double tokens = 0;     // of a decoder the labelled ones, else all
  double share_of_label(double scale) const { return labels > 0 ? scale / labels : 0; }
  double share_of_sequence(double scale) const { return sequences > 0 ? scale / sequences : 0; }
};
// Collective over the data axis.
LabelCounts count_labels(const std::vector<TokenBatch>& micro_batches, const ShardedModel& model,
                         const LossOptions& loss);

// The micro-batches where the model is.
std::vector<TokenBatch> batches_beside(const ShardedModel& model, const std::vector<TokenBatch>& batches);

}  // namespace trireme
