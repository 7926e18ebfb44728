#include "trainer/batch.h"

#include <algorithm>

namespace trireme {

TokenBatch batch_of(const std::vector<Sample>& samples) {
  std::vector<int32_t> ids, labels, positions, starts{0};
  std::vector<int64_t> keys;
  int64_t longest = 0;
  for (const Sample& s : samples) {
    ids.insert(ids.end(), s.ids.begin(), s.ids.end());
    labels.insert(labels.end(), s.labels.begin(), s.labels.end());
    positions.insert(positions.end(), s.positions.begin(), s.positions.end());
    for (size_t i = 0; i < s.ids.size(); ++i)
      keys.push_back(s.number * (int64_t{1} << 20) + static_cast<int64_t>(i));
    for (int32_t length : s.segments) {
      starts.push_back(starts.back() + length);
      longest = std::max<int64_t>(longest, length);
    }
  }
  const int64_t n = static_cast<int64_t>(ids.size());
  TokenBatch b;
  b.ids = tensor_of<int32_t>(ids, {n});
  b.labels = tensor_of<int32_t>(labels, {n});
  b.positions = tensor_of<int32_t>(positions, {n});
  b.row_keys = tensor_of<int64_t>(keys, {n});
  b.segments = {tensor_of<int32_t>(starts, {static_cast<int64_t>(starts.size())}), longest};
  return b;
}

std::vector<TokenBatch> load_batches(const SampleSource& source, const BatchPlan& plan,
                                     int64_t first_sample) {
  std::vector<TokenBatch> batches;
  int64_t number = first_sample + plan.data_rank * (plan.global_batch / plan.data_ranks);
  for (int64_t m = 0; m < plan.micro_batches(); ++m) {
    std::vector<Sample> samples;
    for (int64_t i = 0; i < plan.micro_batch; ++i) samples.push_back(source.sample(number++));
    batches.push_back(batch_of(samples));
  }
  return batches;
}

std::vector<TokenBatch> load_evaluation(const SampleSource& source, const BatchPlan& plan, int64_t count) {
  std::vector<TokenBatch> batches;
  const int64_t round = plan.micro_batch * plan.data_ranks;
  for (int64_t first = 0; first < count; first += round) {
    std::vector<Sample> samples;
    for (int64_t i = 0; i < plan.micro_batch; ++i) {
      const int64_t number = first + plan.data_rank * plan.micro_batch + i;
      // Past the end: the last sample again, with nothing to count.
      samples.push_back(source.sample(std::min(number, count - 1)));
      if (number >= count) std::fill(samples.back().labels.begin(), samples.back().labels.end(), -100);
    }
    batches.push_back(batch_of(samples));
  }
  return batches;
}

}  // namespace trireme
