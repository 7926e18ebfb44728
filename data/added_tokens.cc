#include "data/added_tokens.h"

#include <algorithm>

#include "data/unicode.h"

namespace trireme {

namespace {

bool is_word_character(std::string_view text, size_t at) {
  const CharClass cls = classify_at(text, at).cls;
  return text[at] == '_' || cls == CharClass::kLetter || cls == CharClass::kNumber;
}

// Where the character that ends at `end` begins. REQUIRES: end > 0.
size_t character_before(std::string_view text, size_t end) {
  return end - last_character_length(text.substr(0, end));
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word_character(text, character_before(text, begin))) &&
         (end == text.size() || !is_word_character(text, end));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, std::span<const std::string> contents)
    : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (contents[i].empty()) continue;
    uint32_t at = 0;
    for (char c : contents[i]) {
      const uint8_t byte = static_cast<uint8_t>(c);
      auto& next = nodes_[at].next;
      const auto place = std::lower_bound(next.begin(), next.end(), std::pair<uint8_t, uint32_t>(byte, 0));
      if (place != next.end() && place->first == byte) {
        at = place->second;
      } else {
        const uint32_t fresh = static_cast<uint32_t>(nodes_.size());
        next.insert(place, {byte, fresh});
        nodes_.emplace_back();
        at = fresh;
      }
    }
    nodes_[at].token = static_cast<int32_t>(i);
    first_[static_cast<uint8_t>(contents[i][0])] = true;
  }
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text) const {
  std::vector<Match> matches;
  size_t free = 0;  // text before here belongs to a match
  for (size_t at = 0; at < text.size();) {
    if (!first_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    int32_t token = -1;
    size_t end = at;
    uint32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
      const auto& next = nodes_[node].next;
      const uint8_t byte = static_cast<uint8_t>(text[i]);
      const auto place = std::lower_bound(next.begin(), next.end(), std::pair<uint8_t, uint32_t>(byte, 0));
      if (place == next.end() || place->first != byte) break;
      node = place->second;
      if (nodes_[node].token < 0) continue;
      token = nodes_[node].token;
      end = i + 1;
    }
    if (token < 0) {
      ++at;
      continue;
    }
    const AddedToken& found = tokens_[token];
    if (found.single_word && !is_single_word(text, at, end)) {
      at = end;
      continue;
    }
    size_t begin = at;
    while (found.lstrip && begin > free) {
      const size_t before = character_before(text, begin);
      if (before < free || classify_at(text, before).cls != CharClass::kSpace) break;
      begin = before;
    }
    while (found.rstrip && end < text.size()) {
      const ClassifiedCharacter after = classify_at(text, end);
      if (after.cls != CharClass::kSpace) break;
      end += after.length;
    }
    matches.push_back({begin, end, found.id});
    at = free = end;
  }
  return matches;
}

}  // namespace trireme
