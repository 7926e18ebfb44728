#include "trainer/train_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "parallel/simulator.h"
#include "parallel/tensor_collectives.h"
#include "tensor/cuda/devices.h"
#include "trainer/model_work.h"

namespace trireme {
namespace {

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

// The square of a larger gradient is no f32 number any more: the optimizer's second moment would be Inf for good.
constexpr double kMostGradNorm = 1e19;

}  // namespace

TrainStep::TrainStep(ShardedModel& model, ParameterBuckets& buckets, Optimizer& optimizer,
                     const TrainStepOptions& options)
    : model_(model), buckets_(buckets), optimizer_(optimizer), options_(options) {
  if (options.scale_loss) loss_scale_.value = LossScale::kFirst;
}

const Schedule& TrainStep::schedule_for(int micro_batches) {
  const ScheduleShape shape{model_.mesh().shape().pp, micro_batches, model_.layout().chunks};
  for (const Schedule& s : schedules_)
    if (s.shape == shape) return s;
  schedules_.push_back(make_schedule(options_.schedule, shape));
  validate(schedules_.back());
  return schedules_.back();
}

StepResult TrainStep::forward_backward(const std::vector<TokenBatch>& micro_batches) {
  const Mesh& mesh = model_.mesh();
  StepResult result;
  const LabelCounts counted = count_labels(micro_batches, model_, options_.loss);
  result.tokens = static_cast<int64_t>(counted.tokens);
  check<Error>(counted.labels > 0, "a global batch has no label to learn from; check data.train and data.packing");

  const std::vector<TokenBatch> batches = batches_beside(model_, micro_batches);
  PassContext pass{batches[0], options_.recompute, true, options_.dropout_seed, counted.share_of_label(loss_scale_.value)};
  pass.sequence_loss_scale = counted.share_of_sequence(loss_scale_.value);
  pass.loss_options = &options_.loss;
  buckets_.begin_step();
  ModelWork work(model_, batches, pass, &buckets_, activity_, profiler_);
  const Schedule& schedule = schedule_for(static_cast<int>(micro_batches.size()));
  result.pipeline = run_schedule(schedule, mesh.pp(), work);
  const auto reduced = std::chrono::steady_clock::now();
  if (activity_) activity_("waiting for gradient reductions");
  buckets_.finish();
  result.reduce_s = seconds_since(reduced);
  if (profiler_) {
    profiler_->pipeline(schedule.shape, result.pipeline);
    profiler_->phase("forward and backward", result.pipeline.begin, reduced);
    profiler_->phase("rest of the reductions", reduced, std::chrono::steady_clock::now());
  }
  // Only last stages have a loss; every tensor rank of one has the same.
  result.loss = sum_over(mesh.pp(), sum_over(mesh.dp(), {work.loss_sum()}))[0] / counted.labels;
  result.grad_norm = std::sqrt(buckets_.squared_norm()) / loss_scale_.value;
  return result;
}

StepResult TrainStep::run(const std::vector<TokenBatch>& micro_batches, double learning_rate, int64_t step) {
  StepResult result = forward_backward(micro_batches);
  double scale = 1;
  if (options_.clip_grad_norm > 0 && result.grad_norm > options_.clip_grad_norm)
    scale = options_.clip_grad_norm / result.grad_norm;
  // Every rank has the same numbers, so all decide alike. (An infinite norm times its scale of 0 is NaN.)
  result.skipped = !std::isfinite(result.loss) || !(result.grad_norm * scale <= kMostGradNorm);
  const double applied = scale / loss_scale_.value;
  if (options_.scale_loss) loss_scale_.update(!result.skipped);
  if (result.skipped) return result;
  if (activity_) activity_("optimizer");
  const auto begin = std::chrono::steady_clock::now();
  optimizer_.step(learning_rate, applied, step);
  if (model_.device().kind != DeviceKind::kCpu) cuda::synchronize();
  result.optimizer_s = seconds_since(begin);
  if (profiler_) profiler_->phase("optimizer", begin, std::chrono::steady_clock::now(), optimizer_.bytes_per_step());
  return result;
}

LossOptions TrainStep::evaluated_loss() const {
  LossOptions loss = options_.loss;
  loss.r_drop = 0;
  return loss;
}

EvaluationResult TrainStep::evaluate(const std::vector<TokenBatch>& micro_batches, std::vector<Tensor>* outputs) {
  return trireme::evaluate(model_, micro_batches, evaluated_loss(), outputs, activity_);
}

}  // namespace trireme
