#include "trainer/checkpoint_slices.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "model/copy_box.h"

namespace trireme {
namespace {

// A part of a piece: local rows [row, row + rows) from the piece's first, columns [column, column + columns).
LocalSlice part_of(const Piece& piece, int64_t offset, int64_t row, int64_t rows, int64_t column,
                   int64_t columns) {
  LocalSlice s;
  s.piece = piece;
  s.piece.row = 0;
  s.offset = offset;
  Box& box = s.piece.box;
  if (box.rank() == 1) {
    box.start[0] += row;
    box.length[0] = rows;
    s.local = {rows};
    return s;
  }
  const int row_axis = piece.transposed ? 1 : 0;
  box.start[row_axis] += row;
  box.length[row_axis] = rows;
  box.start[1 - row_axis] += column;
  box.length[1 - row_axis] = columns;
  s.local = {rows, columns};
  return s;
}

int64_t parse_number(std::string_view digits, const std::string& name, const std::string& where) {
  int64_t n = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  check<FileError>(error == std::errc() && end == digits.data() + digits.size() && n >= 0, where,
                   ": the slice \"", name, "\" has \"", digits, "\" where a number belongs");
  return n;
}

}  // namespace

std::string slice_name(const std::string& state, const std::string& tensor, const Box& box) {
  std::string name = state + '|' + tensor + '|';
  for (int i = 0; i < box.rank(); ++i)
    name += text(i ? "," : "", box.start[i], ':', box.start[i] + box.length[i]);
  return name;
}

SliceName parse_slice_name(const std::string& name, const std::string& where) {
  const size_t first = name.find('|'), last = name.rfind('|');
  check<FileError>(first != name.npos && first < last, where, ": \"", name,
                   "\" is no slice; those are called STATE|NAME|start:end,start:end");
  SliceName s{name.substr(0, first), name.substr(first + 1, last - first - 1), {}};
  std::string_view rest = std::string_view(name).substr(last + 1);
  while (true) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view range = rest.substr(0, comma);
    const size_t colon = range.find(':');
    check<FileError>(colon != range.npos, where, ": the slice \"", name, "\" has no ':' in \"", range, '"');
    const int64_t begin = parse_number(range.substr(0, colon), name, where);
    const int64_t end = parse_number(range.substr(colon + 1), name, where);
    check<FileError>(begin <= end, where, ": the slice \"", name, "\" ends before it begins");
    s.box.start.push_back(begin);
    s.box.length.push_back(end - begin);
    if (comma == rest.size()) break;
    rest.remove_prefix(comma + 1);
  }
  check<FileError>(s.box.rank() <= 2, where, ": the slice \"", name, "\" has more than two dimensions");
  return s;
}

std::vector<LocalSlice> slices_of(const Parameter& p, int64_t begin, int64_t end) {
  const int64_t columns = p.shape.rank() == 2 ? p.shape[1] : 1;
  std::vector<LocalSlice> slices;
  for (const Piece& piece : p.pieces) {
    const int64_t first = piece.row * columns;
    int64_t at = std::max(begin, first) - first;  // from the piece's first element
    const int64_t stop = std::min(end, first + piece.rows() * columns) - first;
    const auto add = [&](int64_t count, int64_t rows, int64_t column, int64_t width) {
      slices.push_back(part_of(piece, first + at, at / columns, rows, column, width));
      at += count;
    };
    if (at < stop && at % columns) {
      const int64_t column = at % columns, width = std::min(columns - column, stop - at);
      add(width, 1, column, width);
    }
    if (const int64_t rows = at < stop ? (stop - at) / columns : 0) add(rows * columns, rows, 0, columns);
    if (at < stop) add(stop - at, 1, 0, stop - at);
  }
  return slices;
}

void copy_slice_out(const Tensor& flat, int64_t at, const LocalSlice& slice, const Tensor& stored) {
  copy_piece_out(flat.rows(at, at + slice.local.numel()).reshape(slice.local), slice.piece, stored);
}

void copy_slice_in(const Tensor& stored, const LocalSlice& slice, const Tensor& flat, int64_t at) {
  copy_piece_in(stored, slice.piece, flat.rows(at, at + slice.local.numel()).reshape(slice.local));
}

void paste_box(const Tensor& values, const Box& box, const Tensor& whole) {
  TRIREME_ASSERT(values.dtype() == whole.dtype() && values.numel() == box.numel() &&
                 box.rank() == whole.rank() && box.rank() <= 2);
  if (box.numel() == 0) return;
  const size_t element = size_of(values.dtype());
  const bool flat = box.rank() == 1;
  const size_t rows = flat ? 1 : box.length[0], run = element * (flat ? box.length[0] : box.length[1]);
  const size_t stride = flat ? 0 : element * whole.dim(1);
  char* to = static_cast<char*>(whole.raw()) + (flat ? 0 : box.start[0] * stride) +
             element * (flat ? box.start[0] : box.start[1]);
  const char* from = static_cast<const char*>(values.raw());
  for (size_t r = 0; r < rows; ++r) std::memcpy(to + r * stride, from + r * run, run);
}

SliceIndex SliceIndex::open(const std::vector<std::filesystem::path>& files) {
  SliceIndex index;
  for (const std::filesystem::path& path : files) {
    index.folder_ = path.parent_path();
    index.files_.push_back(SafetensorsFile::open(path));
    const size_t file = index.files_.size() - 1;
    for (const SafetensorsEntry& e : index.files_[file].entries()) {
      SliceName s = parse_slice_name(e.name, path.string());
      check<FileError>(e.dtype == DType::kF32 && e.shape == shape_of(s.box), path.string(), ": ", e.name,
                       " is ", e.file_dtype, " ", e.shape, ", which is not what its name says");
      index.slices_[{s.state, s.tensor}].push_back({file, e.name, std::move(s.box)});
    }
  }
  return index;
}

Tensor SliceIndex::read(const std::string& state, const std::string& tensor, const Box& box) const {
  const std::string what = text(folder_.string(), ": ", state, " of ", tensor, ' ', box);
  const auto found = slices_.find({state, tensor});
  check<FileError>(found != slices_.end(), what, " is in none of the optimizer files");
  Tensor result = zeros(shape_of(box), DType::kF32);
  Tensor covered = zeros(shape_of(box), DType::kU8);
  int64_t missing = box.numel();
  for (const Slice& slice : found->second) {
    check<FileError>(slice.box.rank() == box.rank(), what, ": the slice ", slice.name, " has another rank");
    Box common = intersect(slice.box, box);
    if (common.numel() == 0) continue;
    Box in_slice = common;
    for (int i = 0; i < box.rank(); ++i) {
      in_slice.start[i] -= slice.box.start[i];
      common.start[i] -= box.start[i];  // now from the corner of `box`
    }
    const Tensor part = files_[slice.file].read_box(slice.name, in_slice);
    if (common.length == box.length && missing == box.numel() && found->second.size() == 1) return part;
    const float* from = part.data<float>();
    const int64_t columns = box.rank() == 2 ? box.length[1] : 1;
    const int64_t width = box.rank() == 2 ? common.length[1] : 1,
                  first = box.rank() == 2 ? common.start[1] : 0;
    for (int64_t r = 0; r < common.length[0]; ++r)
      for (int64_t c = 0; c < width; ++c, ++from) {
        const int64_t at = (common.start[0] + r) * columns + first + c;
        float& to = result.data<float>()[at];
        uint8_t& mark = covered.data<uint8_t>()[at];
        check<FileError>(!mark || std::memcmp(&to, from, sizeof to) == 0, what,
                         ": two optimizer files differ in it");
        missing -= !mark;
        mark = 1;
        to = *from;
      }
  }
  check<FileError>(missing == 0, what, ": ", missing, " of ", box.numel(),
                   " elements are in none of the optimizer files");
  return result;
}

}  // namespace trireme
