// A model's outputs for the samples of a task, from all ranks.
#pragma once

#include "tasks/task.h"
#include "trainer/batch.h"
#include "trainer/evaluate.h"

namespace trireme {

struct TaskEvaluation {
  double loss = 0;                  // mean over the labels; 0 where the data has none
  std::vector<TaskOutput> outputs;  // of each sample, on every rank
};

// Samples [0, count) of `data`, whose batches `source` makes in their order. plan: its micro-batches;
// global_batch is not read. Collective over the mesh, which is all of `world`.
TaskEvaluation evaluate_task(Communicator& world, const ShardedModel& model, const TaskData& data,
                             const BatchSource& source, const BatchPlan& plan, int64_t count,
                             const LossOptions& loss, const ActivityFn& activity = {});

}  // namespace trireme
