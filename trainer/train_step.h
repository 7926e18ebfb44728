// One training step of a sharded model, and one evaluation pass: micro-batches through the pipeline schedule, gradients
// reduced while backward runs, clipped, applied. The same arithmetic at every layout: losses and gradients are sums over
// the labelled tokens of the whole global batch, divided by their number.
#pragma once

#include <string>
#include <vector>

#include "model/sharded_model.h"
#include "parallel/buckets.h"
#include "parallel/executor.h"
#include "trainer/evaluate.h"
#include "trainer/loss_scale.h"
#include "trainer/optimizer.h"
#include "trainer/profile.h"

namespace trireme {

struct TrainStepOptions {
  std::string schedule = "1f1b";
  Recompute recompute = Recompute::kNone;
  double clip_grad_norm = 1.0;  // 0: no clipping
  uint64_t dropout_seed = 0;
  LossOptions loss = {};
  bool scale_loss = false;      // dynamic loss scaling: for f16 storage
};

struct StepResult {
  double loss = 0;          // mean over the labels of the global batch, see loss_weight()
  int64_t tokens = 0;       // of the global batch: labelled ones of a decoder, else all
  double grad_norm = 0;     // before clipping
  bool skipped = false;     // loss or gradients were not finite, or past 1e19: nothing was changed but the loss scale
  PipelineReport pipeline;  // of this rank
  double reduce_s = 0;      // this rank waited for gradient reductions after backward
  double optimizer_s = 0;   // update and gathering of values
};

class TrainStep {
 public:
  // References outlive this.
  TrainStep(ShardedModel& model, ParameterBuckets& buckets, Optimizer& optimizer, const TrainStepOptions& options);

  // micro_batches: those of this data rank, the same on every rank of its pipeline and tensor groups; the same number
  // on every data rank. `step` counts from 1. Collective over the mesh.
  StepResult run(const std::vector<TokenBatch>& micro_batches, double learning_rate, int64_t step);
  // As run() without the update: gradients stay in the buckets' shards, times loss_scale().value.
  StepResult forward_backward(const std::vector<TokenBatch>& micro_batches);
  // As trireme::evaluate(), with the options of this.
  EvaluationResult evaluate(const std::vector<TokenBatch>& micro_batches, std::vector<Tensor>* outputs = nullptr);

  // The loss of evaluations: that of training, with one pass a sample.
  LossOptions evaluated_loss() const;

  // With options.scale_loss, a run's first or that of where it goes on; else 1. The same on all ranks.
  const LossScale& loss_scale() const { return loss_scale_; }
  void set_loss_scale(const LossScale& scale) { loss_scale_ = scale; }

  void set_activity(ActivityFn fn) { activity_ = std::move(fn); }
  // Is told of ops, pipeline actions and phases of each step; null: nobody.
  void set_profiler(Profiler* profiler) { profiler_ = profiler; }

 private:
  const Schedule& schedule_for(int micro_batches);

  ShardedModel& model_;
  ParameterBuckets& buckets_;
  Optimizer& optimizer_;
  TrainStepOptions options_;
  LossScale loss_scale_;
  ActivityFn activity_;
  Profiler* profiler_ = nullptr;
  std::vector<Schedule> schedules_;  // by shape, made on first use
};

}  // namespace trireme
