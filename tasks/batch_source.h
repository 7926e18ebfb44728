// Where the micro-batches of a run come from: a function of sample numbers, so that neither the layout nor a
// restart changes what is learned from.
#pragma once

#include <string>
#include <vector>

#include "model/transformer.h"

namespace trireme {

class BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Samples [e * n, (e + 1) * n) are epoch e.
  virtual int64_t samples_per_epoch() const = 0;
  // Those samples, one after another. Of the last ones, past the first `counted`, no label counts. Throws
  // FileError for data that cannot be read. REQUIRES: numbers at least 0, counted <= numbers.size().
  virtual TokenBatch batch(const std::vector<int64_t>& numbers, size_t counted) const = 0;
  // A hash of what the sample numbers mean: a run that goes on must see the same data.
  virtual uint64_t identity() const = 0;
  // For people: "12345 tokens".
  virtual std::string size_text() const = 0;
};

// Builds a TokenBatch segment by segment.
class BatchBuilder {
 public:
  // The rows of one segment; types empty: all 0. Its dropout is keyed by sample and by the place of each row
  // in the sample, where the segment begins at `place`.
  void add_segment(const std::vector<int32_t>& ids, const std::vector<int32_t>& types, int64_t sample,
                   int64_t place = 0);
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t segments() const { return static_cast<int64_t>(starts_.size()) - 1; }
  // Rows up to a multiple of n in a segment of their own, for sequence parallelism.
  void pad_to_multiple(int64_t n, int32_t id);
  // Everything but labels.
  TokenBatch build() const;

 private:
  std::vector<int32_t> ids_, types_, positions_, starts_{0};
  std::vector<int64_t> keys_;
  int64_t longest_ = 0;
  bool typed_ = false;
};

}  // namespace trireme
