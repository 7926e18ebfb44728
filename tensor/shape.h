// The sizes of a tensor's dimensions, at most eight, held inline.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>

#include "base/error.h"

namespace trireme {

class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  // Throws ShapeError above eight dims, on a negative size, or when the element count overflows.
  explicit Shape(std::span<const int64_t> dims) {
    check(dims.size() <= kMaxRank, "shape has ", dims.size(), " dims; at most ", kMaxRank, " are supported");
    int64_t total = 1;
    for (int64_t d : dims) {
      check(d >= 0, "shape has a negative size ", d);
      check(!__builtin_mul_overflow(total, d, &total), "shape has more elements than 64 bits can count");
      dims_[rank_++] = d;
    }
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t numel() const {
    int64_t total = 1;
    for (int i = 0; i < rank_; ++i) total *= dims_[i];
    return total;
  }
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }

  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (dims_[i] != other.dims_[i]) return false;
    return true;
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) {
  out << '[';
  for (int i = 0; i < s.rank(); ++i) out << (i ? "," : "") << s[i];
  return out << ']';
}

}  // namespace trireme
