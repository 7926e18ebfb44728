// The sizes in which the caching allocators keep blocks, so that a freed block fits later requests of about its size.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

namespace trireme {

constexpr size_t kBlockAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLargeBlock = size_t{1} << 20;

// Small sizes: the next of {3/4, 1} x power of two. Large ones: an eighth of the power of two below, at least a page.
constexpr size_t size_class(size_t num_bytes) {
  const size_t wanted = std::max(num_bytes, kBlockAlignment);
  if (wanted < kLargeBlock) {
    const size_t whole = std::bit_ceil(wanted), part = whole / 4 * 3;
    return part >= wanted && part % kBlockAlignment == 0 ? part : whole;
  }
  const size_t step = std::max(kHugePage, std::bit_floor(wanted) / 8);
  return (wanted + step - 1) / step * step;
}

}  // namespace trireme
