// From samples to the micro-batches of one data rank.
#pragma once

#include "data/sample_source.h"
#include "model/transformer.h"

namespace trireme {

// The rows of `samples`, one after another.
TokenBatch batch_of(const std::vector<Sample>& samples);

// Which part of a global batch a data rank works on: sequences [rank, rank + 1) * global / ranks, in
// micro-batches of `micro_batch` sequences. REQUIRES: the sizes divide (see validate()).
struct BatchPlan {
  int64_t global_batch = 0;  // sequences
  int64_t micro_batch = 0;
  int64_t data_ranks = 1;
  int64_t data_rank = 0;
  int64_t micro_batches() const { return global_batch / data_ranks / micro_batch; }
};

// The micro-batches of this rank for global samples [first, first + global_batch).
std::vector<TokenBatch> load_batches(const SampleSource& source, const BatchPlan& plan, int64_t first_sample);

// The same for an evaluation over samples [0, count): in order, the last global batches short or, on some
// ranks, missing labels, so that every rank runs the same number of micro-batches and each sample counts
// once.
std::vector<TokenBatch> load_evaluation(const SampleSource& source, const BatchPlan& plan, int64_t count);

}  // namespace trireme
