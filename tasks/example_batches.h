// The samples of a task as micro-batches: packed one after another, so that no work is done on padding.
#pragma once

#include <memory>

#include "tasks/batch_source.h"
#include "tasks/task.h"

namespace trireme {

struct ExampleBatchOptions {
  HeadKind head = HeadKind::kSequenceClassification;
  ProblemType problem = ProblemType::kSingleLabel;
  int64_t outputs = 1;  // of the head, for multi-label and regression
  bool shuffle = true;  // a new order each epoch
  uint64_t seed = 0;
  bool twice = false;        // each sample two times, each with a dropout of its own (LossOptions::r_drop)
  int64_t row_multiple = 1;  // rows of a batch: the tensor ranks under sequence parallelism
  int32_t pad_id = 0;        // of the rows that fill up
};

class ExampleBatches final : public BatchSource {
 public:
  // REQUIRES: data is not null and has samples, labelled or not as a whole; it outlives this.
  ExampleBatches(const TaskData& data, const ExampleBatchOptions& options);

  int64_t samples_per_epoch() const override { return static_cast<int64_t>(data_.samples.size()); }
  // Samples that do not count are left out; where none counts, one comes without its labels.
  TokenBatch batch(const std::vector<int64_t>& numbers, size_t counted) const override;
  uint64_t identity() const override;
  std::string size_text() const override;

 private:
  const TaskSample& sample(int64_t number) const;

  const TaskData& data_;
  ExampleBatchOptions options_;
};

}  // namespace trireme
