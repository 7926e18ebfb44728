// Tokens that are taken out of a text as they are written, before the token model sees it: special tokens
// such as "<|endoftext|>", and words that a user added.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

// As "added_tokens" of a tokenizer.json has them.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = true;       // left out of decoded text on request
  bool normalized = false;   // looked for after normalization, not before
  bool single_word = false;  // only between characters that are no letter, number or underscore
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

constexpr size_t kMaxAddedTokenBytes = 4096;

// Finds tokens in a text, at each place the longest that is written there. Linear in the text for tokens of
// bounded length.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // Index i of a match is that of tokens[i]. `contents` replaces the tokens' own (after normalization, say).
  AddedTokenMatcher(std::vector<AddedToken> tokens, std::span<const std::string> contents);

  struct Match {
    size_t begin, end;
    int32_t id;
  };
  // All matches, in order and disjoint.
  std::vector<Match> find(std::string_view text) const;
  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> next;  // by byte, ascending
    int32_t token = -1;                              // index of the token that ends here
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> first_{};  // bytes that begin a token
};

}  // namespace trireme
