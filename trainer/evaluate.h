// Forwards of a sharded model without a backward: losses, and what its head puts out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/sharded_model.h"

namespace trireme {

// Called with what the rank does, for the watchdog; may be empty.
using ActivityFn = std::function<void(const std::string&)>;

struct EvaluationResult {
  double loss = 0;    // mean over the labels; 0 without any
  double weight = 0;  // of the labels: loss_weight(), over all ranks
};

// micro_batches: those of this data rank, the same on every rank of its pipeline and tensor groups; their
// number may differ between data ranks. outputs: null, or where each micro-batch's Head::outputs() go, in
// their order, on the ranks of the last stage. Batches without labels have no loss. Collective over the mesh.
EvaluationResult evaluate(const ShardedModel& model, const std::vector<TokenBatch>& micro_batches,
                          const LossOptions& loss = {}, std::vector<Tensor>* outputs = nullptr,
                          const ActivityFn& activity = {});

}  // namespace trireme
