// Token strings and their ids. Ids may have gaps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace trireme {

class Vocabulary {
 public:
  Vocabulary() = default;
  // Entries in any order. Throws FileError "where: ..." on an empty or repeated token, a repeated or negative
  // id, or one beyond 4 * entries + 65536 (memory is taken in proportion to the largest id).
  Vocabulary(std::vector<std::pair<std::string, int64_t>> entries, const std::string& where);
  // ids_ refers into tokens_, whose strings stay where they are when the vector moves.
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  std::optional<int32_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  // The token of an id; nothing where there is none.
  std::optional<std::string_view> token(int64_t id) const {
    if (id < 0 || id >= static_cast<int64_t>(tokens_.size()) || tokens_[id].empty()) return std::nullopt;
    return tokens_[id];
  }
  size_t count() const { return ids_.size(); }                               // tokens
  int32_t id_limit() const { return static_cast<int32_t>(tokens_.size()); }  // one above the largest id

 private:
  std::vector<std::string> tokens_;  // by id; empty where there is none
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace trireme
