#include "data/aligned_text.h"

#include "base/utf8.h"
#include "data/unicode.h"

namespace trireme {

AlignedText AlignedText::tracked(std::string_view original, bool keep_malformed) {
  AlignedText made;
  made.tracked_ = true;
  made.text_.reserve(original.size());
  made.stands_for_.reserve(original.size());
  for (size_t at = 0; at < original.size();) {
    const Character c = character_at(original, at);
    size_t length = c.length;
    if (c.code_point != kNoCodePoint || keep_malformed) {
      made.text_.append(original, at, length);
    } else {
      const size_t bad = malformed_length(original.substr(at));
      length = bad == 0 ? original.size() - at : bad;
      append_utf8(made.text_, 0xFFFD);
    }
    const ByteRange range{static_cast<uint32_t>(at), static_cast<uint32_t>(at + length)};
    made.stands_for_.resize(made.text_.size(), range);
    at += length;
  }
  return made;
}

ByteRange AlignedText::original(size_t begin, size_t end) const {
  if (begin < end) return {stands_for_[begin].begin, stands_for_[end - 1].end};
  if (stands_for_.empty()) return {};
  const uint32_t at = begin < stands_for_.size() ? stands_for_[begin].begin : stands_for_.back().end;
  return {at, at};
}

AlignedText AlignedText::part(size_t begin, size_t end) const {
  AlignedText made;
  made.text_ = text_.substr(begin, end - begin);
  made.tracked_ = tracked_;
  if (tracked_)
    made.stands_for_.assign(stands_for_.begin() + static_cast<std::ptrdiff_t>(begin),
                            stands_for_.begin() + static_cast<std::ptrdiff_t>(end));
  return made;
}

}  // namespace trireme
