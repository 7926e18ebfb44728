#include "trainer/train_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "parallel/simulator.h"
#include "parallel/tensor_collectives.h"
#include "tensor/cuda/devices.h"
#include "tensor/on_device.h"
#include "trainer/batch.h"

namespace trireme {
namespace {

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

// What the executor drives: the rank's chunks, with the gradient buckets hung on their backward.
class ModelWork final : public StageWork {
 public:
  ModelWork(ShardedModel& model, const std::vector<TokenBatch>& batches, const PassContext& pass,
            ParameterBuckets* buckets, const ActivityFn& activity, OpObserver* observer)
      : model_(model), batches_(batches), pass_(pass), buckets_(buckets), activity_(activity), observer_(observer) {
    if (!buckets) return;
    hooks_.begins = [this](int group) { buckets_->group_begins(group); };
    hooks_.done = [this](int group) { buckets_->group_done(group, last_); };
  }

  Shape activation_shape(int micro_batch) const override {
    return model_.activation_shape(batches_[micro_batch].tokens());
  }
  DType activation_dtype() const override { return model_.parameters().all()[0]->value.dtype(); }
  Device device() const override { return model_.parameters().all()[0]->value.device(); }

  Tensor forward(int micro_batch, int chunk, const Tensor& x, Tape* tape) override {
    PassContext pass{batches_[micro_batch], pass_.recompute, pass_.dropout, pass_.dropout_seed, pass_.loss_scale};
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
  void backward_begins(int, int, bool last) override { last_ = last; }
  void backward_done(int, int chunk, bool last) override {
    if (buckets_) buckets_->group_done(model_.chunks()[chunk]->first_group(), last);
  }
  void activity(const std::string& what) override {
    if (activity_) activity_(what);
  }

  OpObserver* observer() override { return observer_; }

  // Where the outputs of the last stage's forwards go, in their order.
  void want(std::vector<Tensor>* outputs) { outputs_ = outputs; }

  // Of the forwards so far, in their order.
  double loss_sum() const {
    double sum = 0;
    for (const VocabularyTotals& totals : losses_) sum += totals.get().loss;
    return sum;
  }

 private:
  ShardedModel& model_;
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

// Of one data rank's micro-batches, and then of all.
struct LabelCounts {
  double labels = 0, sequences = 0, tokens = 0;
};
LabelCounts count(const std::vector<TokenBatch>& batches, const ShardedModel& model, const LossOptions& loss) {
  LabelCounts n;
  for (const TokenBatch& b : batches) {
    const double labels = b.labels.defined() ? loss_weight(b, loss.class_weights) : 0;
    n.labels += labels;
    n.tokens += is_decoder(model.config()) ? labels : static_cast<double>(b.tokens());
    if (!b.sequence_labels.defined()) continue;
    const auto sequences = b.sequence_labels.span<int32_t>();
    n.sequences += static_cast<double>(sequences.size()) - static_cast<double>(std::count(sequences.begin(), sequences.end(), kIgnoreLabel));
  }
  const auto sums = sum_over(model.mesh().dp(), {n.labels, n.sequences, n.tokens});
  return {sums[0], sums[1], sums[2]};
}
double share(double scale, double count) { return count > 0 ? scale / count : 0; }

// The micro-batches where the model is.
std::vector<TokenBatch> batches_beside(const ShardedModel& model, const std::vector<TokenBatch>& batches) {
  std::vector<TokenBatch> there;
  for (const TokenBatch& b : batches) there.push_back(batch_on(model.device(), b, model.config()));
  return there;
}

// The square of a larger gradient is no f32 number any more: the optimizer's second moment would be Inf for good.
constexpr double kMostGradNorm = 1e19;

}  // namespace

TrainStep::TrainStep(ShardedModel& model, ParameterBuckets& buckets, Optimizer& optimizer,
                     const TrainStepOptions& options)
    : model_(model), buckets_(buckets), optimizer_(optimizer), options_(options) {
  if (options.scale_loss) loss_scale_.value = LossScale::kFirst;
}

const Schedule& TrainStep::schedule_for(int micro_batches, bool forward_only) {
  const ScheduleShape shape{model_.mesh().shape().pp, micro_batches, model_.layout().chunks};
  for (const Schedule& s : schedules_)
    if (s.shape == shape && s.forward_only == forward_only) return s;
  schedules_.push_back(forward_only ? make_forward_schedule(shape) : make_schedule(options_.schedule, shape));
  validate(schedules_.back());
  return schedules_.back();
}

StepResult TrainStep::forward_backward(const std::vector<TokenBatch>& micro_batches) {
  const Mesh& mesh = model_.mesh();
  StepResult result;
  const LabelCounts counted = count(micro_batches, model_, options_.loss);
  result.tokens = static_cast<int64_t>(counted.tokens);
  check<Error>(counted.labels > 0, "a global batch has no label to learn from; check data.train and data.packing");

  const std::vector<TokenBatch> batches = batches_beside(model_, micro_batches);
  PassContext pass{batches[0], options_.recompute, true, options_.dropout_seed, share(loss_scale_.value, counted.labels)};
  pass.sequence_loss_scale = share(loss_scale_.value, counted.sequences);
  pass.loss_options = &options_.loss;
  buckets_.begin_step();
  ModelWork work(model_, batches, pass, &buckets_, activity_, profiler_);
  const Schedule& schedule = schedule_for(static_cast<int>(micro_batches.size()), false);
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

EvaluationResult TrainStep::evaluate(const std::vector<TokenBatch>& micro_batches, std::vector<Tensor>* outputs) {
  const Mesh& mesh = model_.mesh();
  const LabelCounts counted = count(micro_batches, model_, options_.loss);
  double loss = 0;
  if (!micro_batches.empty()) {
    const std::vector<TokenBatch> batches = batches_beside(model_, micro_batches);
    PassContext pass{batches[0], Recompute::kNone, false, 0, share(1, counted.labels)};
    pass.sequence_loss_scale = share(1, counted.sequences);
    pass.loss_options = &options_.loss;
    ModelWork work(model_, batches, pass, nullptr, activity_, nullptr);
    work.want(outputs);
    run_schedule(schedule_for(static_cast<int>(micro_batches.size()), true), mesh.pp(), work);
    loss = work.loss_sum();
  }
  const double total = sum_over(mesh.pp(), sum_over(mesh.dp(), {loss}))[0];
  return {share(total, counted.labels), counted.labels};
}

}  // namespace trireme
