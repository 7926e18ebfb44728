#include "data/encoding.h"

#include <algorithm>

#include "base/error.h"

namespace trireme {

namespace {

template <class T>
void append_range(std::vector<T>& to, const std::vector<T>& from, size_t begin, size_t end) {
  to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(begin),
            from.begin() + static_cast<std::ptrdiff_t>(end));
}

}  // namespace

void Encoding::append(const Encoding& other, size_t begin, size_t end) {
  append_range(ids, other.ids, begin, end);
  append_range(ranges, other.ranges, begin, end);
  append_range(words, other.words, begin, end);
  append_range(sequences, other.sequences, begin, end);
  append_range(type_ids, other.type_ids, begin, end);
}

Encoding Encoding::part(size_t begin, size_t end) const {
  Encoding made;
  made.append(*this, begin, end);
  return made;
}

std::pair<size_t, size_t> truncated_lengths(size_t first, size_t second, size_t room, Truncation truncation) {
  if (first + second <= room) return {first, second};
  const size_t excess = first + second - room;
  const auto cut = [&](size_t length, const char* which) {
    check<Error>(excess < length, "two texts of ", first, " and ", second, " tokens must be cut to ", room,
                 " by shortening the ", which, " alone, which has too few; allow more tokens or cut both");
    return length - excess;
  };
  if (truncation == Truncation::kOnlyFirst) return {cut(first, "first"), second};
  if (truncation == Truncation::kOnlySecond) return {first, cut(second, "second")};
  size_t shorter = std::min(first, second), longer;
  longer = shorter > room ? shorter : std::max(shorter, room - shorter);
  if (shorter + longer > room) {
    shorter = room / 2;
    longer = room - shorter;
  }
  return first > second ? std::pair(longer, shorter) : std::pair(shorter, longer);
}

std::vector<TokenWindow> token_windows(size_t count, size_t size, size_t overlap) {
  check<Error>(overlap < size, "windows of ", size, " tokens cannot share ", overlap, " with the one before");
  std::vector<TokenWindow> windows;
  for (size_t begin = 0;; begin += size - overlap) {
    windows.push_back({begin, std::min(begin + size, count)});
    if (windows.back().end == count) return windows;
  }
}

}  // namespace trireme
