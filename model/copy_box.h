// Copying a rectangular part out of a row-major array in memory, e.g. a mapped file.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/box.h"
#include "tensor/shape.h"

namespace trireme {

// Throws ShapeError "<what>: box [0:3, 5:9] is not within [4,8]" if box has another rank than `shape` or reaches outside.
void check_box(const Box& box, const Shape& shape, const std::string& what);

// The shape of a box. REQUIRES: check_box().
Shape shape_of(const Box& box);
Box whole(const Shape& shape);

// Copies the elements of `box`, in row-major order, from an array of `shape` to `to`. Runs of elements that lie together
// are one memcpy. REQUIRES: check_box(); `from` holds shape.numel() and `to` box.numel() elements of element_bytes.
void copy_box(std::span<const std::byte> from, const Shape& shape, const Box& box, size_t element_bytes,
              std::span<std::byte> to);

}  // namespace trireme
