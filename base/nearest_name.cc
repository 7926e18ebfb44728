#include "base/nearest_name.h"

#include <algorithm>
#include <vector>

namespace trireme {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> two_above(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    two_above.swap(above);
    above.swap(row);
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string nearest_name(std::string_view typed, std::span<const std::string> names) {
  constexpr size_t kLongest = 100;
  if (typed.size() > kLongest) return {};
  int best = std::max(2, static_cast<int>(typed.size() / 3)) + 1;
  // Two letters of a name of two are all of it.
  best = std::min(best, static_cast<int>(typed.size()));
  std::string nearest;
  for (const std::string& name : names) {
    if (name.size() > kLongest) continue;
    if (const int distance = edit_distance(typed, name); distance < best) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace trireme
