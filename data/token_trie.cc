#include "data/token_trie.h"

#include <algorithm>

namespace trireme {

TokenTrie::TokenTrie(std::vector<std::pair<std::string_view, int32_t>> tokens) {
  std::sort(tokens.begin(), tokens.end());
  root_.fill(kNone);
  // The tokens [begin, end) share their first `depth` bytes, which lead to a node.
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> level;
  // Makes the nodes for the next byte of those tokens in [begin, end) that have one.
  const auto add_children = [&](Range range, size_t depth, std::vector<Range>& into) {
    size_t begin = range.begin;
    while (begin < range.end && tokens[begin].first.size() == depth) ++begin;
    while (begin < range.end) {
      const char byte = tokens[begin].first[depth];
      size_t end = begin + 1;
      while (end < range.end && tokens[end].first[depth] == byte) ++end;
      byte_.push_back(static_cast<uint8_t>(byte));
      token_.push_back(tokens[begin].first.size() == depth + 1 ? tokens[begin].second : -1);
      into.push_back({begin, end});
      begin = end;
    }
  };
  add_children({0, tokens.size()}, 0, level);
  for (uint32_t i = 0; i < byte_.size(); ++i) root_[byte_[i]] = i;
  for (size_t depth = 1; !level.empty(); ++depth) {
    std::vector<Range> below;
    for (const Range& range : level) {
      first_child_.push_back(static_cast<uint32_t>(byte_.size()));
      add_children(range, depth, below);
    }
    level = std::move(below);
  }
  first_child_.push_back(static_cast<uint32_t>(byte_.size()));
}

}  // namespace trireme
