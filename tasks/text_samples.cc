#include "tasks/text_samples.h"

#include "base/error.h"

namespace trireme {

TaskSegment text_segment(const Tokenizer& tokenizer, const std::string& text, const std::string* pair,
                         int64_t max_length, int64_t& cut) {
  TaskSegment segment;
  if (pair) {
    EncodedPair encoded = tokenizer.encode_pair(text, *pair);
    segment = {std::move(encoded.ids), std::move(encoded.type_ids)};
  } else {
    segment.ids = tokenizer.encode(text);
  }
  if (static_cast<int64_t>(segment.ids.size()) <= max_length) return segment;
  ++cut;
  const int64_t room = max_length - static_cast<int64_t>(tokenizer.num_template_tokens(pair != nullptr));
  check<ConfigError>(room >= (pair ? 2 : 1), "data.sequence_length=", max_length,
                     " leaves no room between the special tokens; use a larger one");
  const EncodeOptions bare{.add_special_tokens = false};
  const Encoding first = tokenizer.encode_with_offsets(text, bare);
  const Encoding second = pair ? tokenizer.encode_with_offsets(*pair, bare) : Encoding();
  const auto [a, b] =
      truncated_lengths(first.size(), second.size(), static_cast<size_t>(room), Truncation::kLongestFirst);
  Encoding fitted = pair ? tokenizer.with_template(first.part(0, a), second.part(0, b))
                         : tokenizer.with_template(first.part(0, a));
  if (!pair) return {std::move(fitted.ids), {}};
  return {std::move(fitted.ids), std::move(fitted.type_ids)};
}

std::string cut_note(int64_t cut, int64_t all, int64_t max_length) {
  return text(cut, " of ", all, " texts were cut to ", max_length, " tokens (data.sequence_length)");
}

}  // namespace trireme
