// The known name nearest to one that a user typed, for "did you mean".
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace trireme {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b);

// The name at the smallest distance from `typed`, the first of equals; empty if none is near: more than a third of the
// letters of `typed` (and more than 2) would have to change. Names and `typed` over 100 bytes are never near.
std::string nearest_name(std::string_view typed, std::span<const std::string> names);

}  // namespace trireme
