#include "tasks/example_batches.h"

#include <algorithm>
#include <limits>
#include <span>

#include "base/files.h"
#include "data/sample_order.h"
#include "tensor/ops/cross_entropy.h"

namespace trireme {
namespace {

// Places of a sample's rows, so that two segments of one sample, and two passes of it, have dropouts of their
// own.
constexpr int64_t kPlacesOfPass = int64_t{1} << 19, kPlacesOfSegment = int64_t{1} << 18;

}  // namespace

ExampleBatches::ExampleBatches(const TaskData& data, const ExampleBatchOptions& options)
    : data_(data), options_(options) {
  TRIREME_ASSERT(!data.samples.empty());
}

const TaskSample& ExampleBatches::sample(int64_t number) const {
  const int64_t size = samples_per_epoch();
  int64_t index = number % size;
  if (options_.shuffle) {
    const uint64_t key = options_.seed ^ (static_cast<uint64_t>(number / size) * 0xd1342543de82ef95ull);
    index = static_cast<int64_t>(Permutation(static_cast<uint64_t>(size), key)(static_cast<uint64_t>(index)));
  }
  return data_.samples[static_cast<size_t>(index)];
}

TokenBatch ExampleBatches::batch(const std::vector<int64_t>& numbers, size_t counted) const {
  BatchBuilder builder;
  std::vector<int32_t> labels;
  std::vector<float> values;
  const bool by_token = options_.head == HeadKind::kTokenClassification;
  const bool by_value =
      options_.head == HeadKind::kSequenceClassification && options_.problem != ProblemType::kSingleLabel;
  const size_t per_segment = options_.head == HeadKind::kQuestionAnswering ? 2 : 1;
  for (size_t n = 0; n < std::max<size_t>(counted, 1); ++n) {
    const TaskSample& s = sample(numbers.at(n));
    const bool counts = n < counted;
    for (int pass = 0; pass < (options_.twice ? 2 : 1); ++pass) {
      int64_t place = pass * kPlacesOfPass;
      const int64_t first = builder.segments();
      for (const TaskSegment& segment : s.segments) {
        builder.add_segment(segment.ids, segment.types, numbers[n], place);
        place += kPlacesOfSegment;
      }
      if (options_.head == HeadKind::kEmbedding) {
        // The first of a pair is to find the second.
        for (size_t i = 0; i < s.segments.size(); ++i)
          labels.push_back(counts && i == 0 && s.segments.size() == 2 ? static_cast<int32_t>(first + 1)
                                                                      : kIgnoreLabel);
      } else if (by_value) {
        if (counts) values.insert(values.end(), s.values.begin(), s.values.end());
        values.resize(static_cast<size_t>(builder.segments() * options_.outputs),
                      std::numeric_limits<float>::quiet_NaN());
      } else {
        if (counts) labels.insert(labels.end(), s.labels.begin(), s.labels.end());
        labels.resize(by_token ? builder.tokens() : builder.segments() * per_segment, kIgnoreLabel);
      }
    }
  }
  builder.pad_to_multiple(options_.row_multiple, options_.pad_id);
  const int64_t segments = builder.segments();
  TokenBatch b = builder.build();
  if (by_value) {
    values.resize(static_cast<size_t>(segments * options_.outputs), std::numeric_limits<float>::quiet_NaN());
    b.labels = tensor_of<float>(values, {segments, options_.outputs});
  } else {
    labels.resize(by_token ? builder.tokens() : segments * per_segment,
                  options_.head == HeadKind::kEmbedding ? kNoText : kIgnoreLabel);
    b.labels = tensor_of<int32_t>(
        labels, per_segment == 2 ? Shape{segments, 2} : Shape{static_cast<int64_t>(labels.size())});
  }
  return b;
}

uint64_t ExampleBatches::identity() const {
  std::string words = text(options_.shuffle, ' ', options_.twice, ' ', data_.samples.size());
  const auto add = [&words](const auto& numbers) {
    const auto bytes = std::as_bytes(std::span(numbers));
    words += text(' ', hash_bytes(bytes).low);
  };
  for (const TaskSample& s : data_.samples) {
    for (const TaskSegment& segment : s.segments) add(segment.ids);
    add(s.labels);
    add(s.values);
  }
  return hash_bytes(std::as_bytes(std::span(words.data(), words.size()))).low;
}

std::string ExampleBatches::size_text() const {
  return text(data_.samples.size(), " samples of ", data_.num_tokens(), " tokens");
}

}  // namespace trireme
