#include "trainer/evaluate.h"

#include "parallel/simulator.h"
#include "parallel/tensor_collectives.h"
#include "trainer/model_work.h"

namespace trireme {

EvaluationResult evaluate(const ShardedModel& model, const std::vector<TokenBatch>& micro_batches,
                          const LossOptions& loss, std::vector<Tensor>* outputs, const ActivityFn& activity) {
  const Mesh& mesh = model.mesh();
  const LabelCounts counted = count_labels(micro_batches, model, loss);
  double sum = 0;
  if (!micro_batches.empty()) {
    const std::vector<TokenBatch> batches = batches_beside(model, micro_batches);
    PassContext pass{batches[0], Recompute::kNone, false, 0, counted.share_of_label(1)};
    pass.sequence_loss_scale = counted.share_of_sequence(1);
    pass.loss_options = &loss;
    ModelWork work(model, batches, pass, nullptr, activity, nullptr);
    work.want(outputs);
    const Schedule schedule = make_forward_schedule(
        {mesh.shape().pp, static_cast<int>(micro_batches.size()), model.layout().chunks});
    validate(schedule);
    run_schedule(schedule, mesh.pp(), work);
    sum = work.loss_sum();
  }
  const double total = sum_over(mesh.pp(), sum_over(mesh.dp(), {sum}))[0];
  return {counted.share_of_label(total), counted.labels};
}

}  // namespace trireme
