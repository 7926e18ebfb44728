#include "model/copy_box.h"

#include <array>
#include <cstring>

namespace trireme {

void check_box(const Box& box, const Shape& shape, const std::string& what) {
  bool inside = box.start.size() == box.length.size() && box.rank() == shape.rank();
  for (int i = 0; inside && i < shape.rank(); ++i)
    inside = box.start[i] >= 0 && box.length[i] >= 0 && box.start[i] <= shape[i] &&
             box.length[i] <= shape[i] - box.start[i];
  if (inside) return;
  check(box.start.size() == box.length.size(), what, ": box has ", box.start.size(), " starts and ", box.length.size(),
        " lengths");
  throw ShapeError(text(what, ": box ", box, " is not within ", shape));
}

Shape shape_of(const Box& box) { return Shape(std::span<const int64_t>(box.length)); }

Box whole(const Shape& shape) {
  return {std::vector<int64_t>(shape.rank(), 0), std::vector<int64_t>(shape.dims().begin(), shape.dims().end())};
}

void copy_box(std::span<const std::byte> from, const Shape& shape, const Box& box, size_t element_bytes,
              std::span<std::byte> to) {
  TRIREME_ASSERT(from.size() == static_cast<size_t>(shape.numel()) * element_bytes);
  TRIREME_ASSERT(to.size() == static_cast<size_t>(box.numel()) * element_bytes);
  if (to.empty()) return;
  const int rank = shape.rank();
  // Dims from `split` on lie together in both arrays: all but the first of them are whole.
  int split = rank;
  size_t run = element_bytes;
  while (split > 0) {
    --split;
    run *= static_cast<size_t>(box.length[split]);
    if (box.length[split] != shape[split]) break;
  }
  std::array<size_t, Shape::kMaxRank> stride{};
  size_t width = element_bytes, offset = 0;
  for (int i = rank - 1; i >= 0; --i) {
    stride[i] = width;
    offset += width * static_cast<size_t>(box.start[i]);
    width *= static_cast<size_t>(shape[i]);
  }
  std::array<int64_t, Shape::kMaxRank> at{};
  for (size_t done = 0; done < to.size(); done += run) {
    std::memcpy(to.data() + done, from.data() + offset, run);
    for (int i = split - 1; i >= 0; --i) {  // the next run, as an odometer
      offset += stride[i];
      if (++at[i] < box.length[i]) break;
      offset -= stride[i] * static_cast<size_t>(at[i]);
      at[i] = 0;
    }
  }
}

}  // namespace trireme
