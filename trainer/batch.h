// From sources of samples to the micro-batches of one data rank.
#pragma once

#include "data/sample_source.h"
#include "tasks/batch_source.h"

namespace trireme {

// A decoder's samples: windows of token files.
class TokenBatches final : public BatchSource {
 public:
  // Throws as SampleSource's constructor.
  TokenBatches(const std::vector<SampleSource::File>& files, const SampleOptions& options)
      : source_(files, options), options_(options), files_(files) {}

  int64_t samples_per_epoch() const override { return source_.samples_per_epoch(); }
  TokenBatch batch(const std::vector<int64_t>& numbers, size_t counted) const override;
  uint64_t identity() const override;
  std::string size_text() const override;
  int64_t vocabulary() const { return source_.vocabulary(); }

 private:
  SampleSource source_;
  SampleOptions options_;
  std::vector<SampleSource::File> files_;
};

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
std::vector<TokenBatch> load_batches(const BatchSource& source, const BatchPlan& plan, int64_t first_sample);

// The micro-batches of this rank for an evaluation of samples [first, end), in order: the last ones short, so
// that every rank runs the same number of them and each sample counts once.
std::vector<TokenBatch> load_evaluation(const BatchSource& source, const BatchPlan& plan, int64_t first,
                                        int64_t end);
// Those samples, by micro-batch; without those that do not count.
std::vector<std::vector<int64_t>> evaluation_samples(const BatchPlan& plan, int64_t first, int64_t end);

}  // namespace trireme
