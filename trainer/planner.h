// Finds layouts for a number of ranks: every valid one is predicted, those over the memory of a rank are left out, and the
// fastest are given. The batch and the length stay, so that each of them trains the same run.
#pragma once

#include <vector>

#include "trainer/predict.h"

namespace trireme {

struct PlannerOptions {
  int world_size = 1;
  int ranks_per_host = 1;
  double memory_bytes = 0;  // of a rank; 0: no limit
  size_t keep = 5;
};

struct PlannedLayout {
  ParallelSection parallel;
  int64_t micro_batch = 1;
  Recompute recompute = Recompute::kNone;
  int data_ranks = 1;
  Prediction prediction;

  std::string overrides() const;  // "parallel.tensor=2 parallel.zero=1 train.micro_batch=4", all that the planner chose
};

struct PlannerOutcome {
  std::vector<PlannedLayout> best;  // the fastest first
  int64_t num_valid = 0, num_over_memory = 0;
};

// Tries tensor x pipeline x data ranks, micro-batches of powers of two, zero 0 to 2, recomputation, sequence parallelism,
// and the schedules 1f1b, zb-h1 and interleaved with 2 chunks. Of layouts that take the same time to 1 %, the one with
// less memory comes first.
PlannerOutcome plan_layouts(const RunConfig& config, const ModelConfig& model, const MachineRates& rates,
                            const PlannerOptions& options);

}  // namespace trireme
