#include "trainer/batch.h"

#include <algorithm>
#include <span>

#include "base/files.h"

namespace trireme {

TokenBatch TokenBatches::batch(const std::vector<int64_t>& numbers, size_t counted) const {
  std::vector<int32_t> ids, labels, positions, starts{0};
  std::vector<int64_t> keys;
  int64_t longest = 0;
  for (size_t n = 0; n < numbers.size(); ++n) {
    const Sample s = source_.sample(numbers[n]);
    ids.insert(ids.end(), s.ids.begin(), s.ids.end());
    if (n < counted) labels.insert(labels.end(), s.labels.begin(), s.labels.end());
    labels.resize(ids.size(), -100);
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

uint64_t TokenBatches::identity() const {
  std::string words = text(options_.sequence_length, ' ', static_cast<int>(options_.packing), ' ',
                           options_.shuffle, ' ', options_.reset_positions);
  for (size_t i = 0; i < files_.size(); ++i)
    words += text(' ', source_.files()[i].content_hash(), '*', files_[i].weight);
  return hash_bytes(std::as_bytes(std::span(words.data(), words.size()))).low;
}

std::string TokenBatches::size_text() const { return text(source_.num_tokens(), " tokens"); }

std::vector<TokenBatch> load_batches(const BatchSource& source, const BatchPlan& plan, int64_t first_sample) {
  std::vector<TokenBatch> batches;
  int64_t number = first_sample + plan.data_rank * (plan.global_batch / plan.data_ranks);
  for (int64_t m = 0; m < plan.micro_batches(); ++m) {
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < plan.micro_batch; ++i) numbers.push_back(number++);
    batches.push_back(source.batch(numbers, numbers.size()));
  }
  return batches;
}

std::vector<std::vector<int64_t>> evaluation_samples(const BatchPlan& plan, int64_t first, int64_t end) {
  std::vector<std::vector<int64_t>> samples;
  const int64_t round = plan.micro_batch * plan.data_ranks;
  for (; first < end; first += round) {
    samples.emplace_back();
    const int64_t mine = first + plan.data_rank * plan.micro_batch;
    for (int64_t n = mine; n < std::min(end, mine + plan.micro_batch); ++n) samples.back().push_back(n);
  }
  return samples;
}

std::vector<TokenBatch> load_evaluation(const BatchSource& source, const BatchPlan& plan, int64_t first,
                                        int64_t end) {
  std::vector<TokenBatch> batches;
  for (std::vector<int64_t>& numbers : evaluation_samples(plan, first, end)) {
    const size_t counted = numbers.size();
    numbers.resize(static_cast<size_t>(plan.micro_batch),
                   end - 1);  // the last sample again, with nothing to count
    batches.push_back(source.batch(numbers, counted));
  }
  return batches;
}

}  // namespace trireme
