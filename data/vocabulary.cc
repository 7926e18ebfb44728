#include "data/vocabulary.h"

#include "base/error.h"

namespace trireme {

Vocabulary::Vocabulary(std::vector<std::pair<std::string, int64_t>> entries, const std::string& where) {
  const int64_t limit = std::min<int64_t>(4 * static_cast<int64_t>(entries.size()) + 65536, 1 << 30);
  int64_t largest = -1;
  for (const auto& [token, id] : entries) {
    check<FileError>(!token.empty(), where, ": id ", id, " has an empty token");
    check<FileError>(id >= 0 && id < limit, where, ": token \"", token, "\" has the id ", id, "; ids of ",
                     entries.size(), " tokens must lie in [0, ", limit, ")");
    largest = std::max(largest, id);
  }
  tokens_.resize(static_cast<size_t>(largest + 1));
  ids_.reserve(entries.size());
  for (auto& [token, id] : entries) {
    std::string& place = tokens_[static_cast<size_t>(id)];
    check<FileError>(place.empty(), where, ": id ", id, " belongs to both \"", place, "\" and \"", token,
                     "\"");
    place = std::move(token);
    const auto [other, added] = ids_.emplace(place, static_cast<int32_t>(id));
    check<FileError>(added, where, ": token \"", place, "\" has both ids ", other->second, " and ", id);
  }
}

}  // namespace trireme
