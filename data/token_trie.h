// The tokens of a vocabulary by their bytes, to find all those that a text begins with.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

class TokenTrie {
 public:
  // Longer tokens would let a file ask for time without bound.
  static constexpr size_t kMaxTokenBytes = 1024;

  // Tokens in any order, with an id each. REQUIRES: none is empty, and none there twice.
  explicit TokenTrie(std::vector<std::pair<std::string_view, int32_t>> tokens);

  // Calls visit(length, id) for each token that `text` begins with, the shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    if (text.empty()) return;
    uint32_t node = root_[static_cast<uint8_t>(text[0])];
    for (size_t length = 1; node != kNone; ++length) {
      if (token_[node] >= 0) visit(length, token_[node]);
      if (length == text.size()) return;
      node = child(node, static_cast<uint8_t>(text[length]));
    }
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  uint32_t child(uint32_t node, uint8_t byte) const {
    uint32_t low = first_child_[node], high = first_child_[node + 1];
    while (high - low > 4) {
      const uint32_t middle = low + (high - low) / 2;
      (byte_[middle] <= byte ? low : high) = middle;
    }
    for (; low < high; ++low)
      if (byte_[low] == byte) return low;
    return kNone;
  }

  // Nodes are numbered by levels, so that the children of a node follow those of the node before. The root is
  // no node.
  std::array<uint32_t, 256> root_;
  std::vector<uint8_t> byte_;          // that leads to the node
  std::vector<int32_t> token_;         // that ends at the node; -1: none
  std::vector<uint32_t> first_child_;  // one more than nodes
};

}  // namespace trireme
