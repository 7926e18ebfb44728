// A rectangular part of an n-dimensional array: per dimension a start and a length.
#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

namespace trireme {

struct Box {
  std::vector<int64_t> start, length;

  int rank() const { return static_cast<int>(start.size()); }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t l : length) n *= l;
    return n;
  }
  bool operator==(const Box&) const = default;
};

// The common part; a box with a length of 0 if there is none. REQUIRES: the same rank.
inline Box intersect(const Box& a, const Box& b) {
  Box c = a;
  for (int i = 0; i < a.rank(); ++i) {
    const int64_t begin = a.start[i] > b.start[i] ? a.start[i] : b.start[i];
    const int64_t a_end = a.start[i] + a.length[i], b_end = b.start[i] + b.length[i];
    const int64_t end = a_end < b_end ? a_end : b_end;
    c.start[i] = begin;
    c.length[i] = end > begin ? end - begin : 0;
  }
  return c;
}

// "[start:end, ...]". Boxes that are refused are printed too, so an end may wrap around.
inline std::ostream& operator<<(std::ostream& out, const Box& box) {
  out << '[';
  for (int i = 0; i < box.rank(); ++i)
    out << (i ? ", " : "") << box.start[i] << ':'
        << static_cast<int64_t>(static_cast<uint64_t>(box.start[i]) + static_cast<uint64_t>(box.length[i]));
  return out << ']';
}

}  // namespace trireme
