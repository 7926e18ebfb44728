// What a tokenizer makes of a text, token by token, with the place of each in the text; and what it takes to
// fit pairs of texts into a model's length.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "data/aligned_text.h"

namespace trireme {

// Element i of each vector belongs to token i.
struct Encoding {
  std::vector<int32_t> ids;
  // The bytes of the text that the token stands for, whole characters; of encode_words(), of its word. Where
  // one character became several tokens, each has all of it. Empty for tokens of the template.
  std::vector<ByteRange> ranges;
  // The number of the piece into which the pre-tokenizer cut the text (an added token is a piece too), or of
  // the word given to encode_words(); counted anew in the second text of a pair. -1 for tokens of the
  // template.
  std::vector<int32_t> words;
  std::vector<int32_t> sequences;  // 0: of the first text, 1: of the second, -1: of the template
  std::vector<int32_t> type_ids;   // the segment, as the template says

  size_t size() const { return ids.size(); }
  void append(const Encoding& other, size_t begin, size_t end);
  // The tokens [begin, end).
  Encoding part(size_t begin, size_t end) const;
  bool operator==(const Encoding&) const = default;
};

enum class Truncation { kLongestFirst, kOnlyFirst, kOnlySecond };

// How many tokens of each of two texts to keep, from their fronts, so that together they are at most `room`,
// as transformers does. kLongestFirst takes from the longer one, then from both. Throws Error if the text
// that alone may be cut would have no token left. A text alone is a first one beside a second of 0 tokens.
std::pair<size_t, size_t> truncated_lengths(size_t first, size_t second, size_t room, Truncation truncation);

struct TokenWindow {
  size_t begin, end;
};
// The windows of `size` tokens that together cover `count` tokens, each sharing `overlap` with the one
// before; the last may be shorter. One empty window for 0 tokens. Throws Error unless overlap < size.
std::vector<TokenWindow> token_windows(size_t count, size_t size, size_t overlap);

}  // namespace trireme
