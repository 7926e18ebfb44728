#include "parallel/parameter.h"

#include <algorithm>
#include <cstring>

#include "tensor/rng.h"

namespace trireme {
namespace {

// Calls fn(local element, element of the box in the file's order, element of the global tensor).
template <class Fn>
void for_each_element(const Piece& piece, const Shape& local, Fn&& fn) {
  if (piece.box.rank() == 1) {
    for (int64_t i = 0; i < piece.box.length[0]; ++i) fn(piece.row + i, i, piece.box.start[0] + i);
    return;
  }
  const int64_t columns = local[1], box_columns = piece.box.length[1], global_columns = piece.global[1];
  for (int64_t i = 0; i < piece.box.length[0]; ++i)
    for (int64_t j = 0; j < box_columns; ++j) {
      const int64_t at = piece.transposed ? (piece.row + j) * columns + i : (piece.row + i) * columns + j;
      fn(at, i * box_columns + j, (piece.box.start[0] + i) * global_columns + piece.box.start[1] + j);
    }
}

void require_fits(const Tensor& box_values, const Piece& piece, const Tensor& local) {
  TRIREME_ASSERT(box_values.numel() == piece.box.numel() && box_values.dtype() == local.dtype());
  TRIREME_ASSERT(piece.row + piece.rows() <= local.dim(0));
  TRIREME_ASSERT(piece.box.rank() == 1 || piece.box.length[piece.transposed ? 0 : 1] == local.dim(1));
}

// A transposed piece, in tiles whose rows and columns both stay in the first cache level.
template <class T>
void copy_elements(const T* from, T* to, const Piece& piece, const Shape& local, bool in) {
  constexpr int64_t kTile = 32;
  const int64_t rows = piece.box.length[0], columns = piece.box.length[1], width = local[1];
  for (int64_t i0 = 0; i0 < rows; i0 += kTile)
    for (int64_t j0 = 0; j0 < columns; j0 += kTile)
      for (int64_t j = j0; j < std::min(j0 + kTile, columns); ++j)
        for (int64_t i = i0; i < std::min(i0 + kTile, rows); ++i) {
          const int64_t at = (piece.row + j) * width + i, in_box = i * columns + j;
          if (in) to[at] = from[in_box];
          else to[in_box] = from[at];
        }
}

void copy_piece(const void* from, void* to, const Piece& piece, const Tensor& local, bool in) {
  const size_t element = size_of(local.dtype());
  if (!piece.transposed) {  // whole rows, one after another, on both sides
    const size_t row_bytes = element * (local.rank() == 2 ? local.dim(1) : 1);
    const size_t offset = piece.row * row_bytes, bytes = piece.rows() * row_bytes;
    if (bytes == 0) return;
    if (in) std::memcpy(static_cast<char*>(to) + offset, from, bytes);
    else std::memcpy(to, static_cast<const char*>(from) + offset, bytes);
  } else if (element == 4) {
    copy_elements(static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to), piece, local.shape(), in);
  } else {
    TRIREME_ASSERT(element == 2);
    copy_elements(static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to), piece, local.shape(), in);
  }
}

}  // namespace

void allocate_values(const ParameterList& parameters, DType dtype, Device device) {
  for (const auto& p : parameters.all()) p->value = empty(p->shape, dtype, device);
}

void initialize(const Parameter& parameter, uint64_t seed) {
  const Tensor& value = parameter.value;
  std::memset(value.raw(), 0, value.num_bytes());
  if (parameter.init.kind == Init::Kind::kZeros) return;
  for (const Piece& piece : parameter.pieces) {
    auto fill = [&](auto* data, auto convert) {
      for_each_element(piece, value.shape(), [&](int64_t at, int64_t, int64_t global) {
        const float v = parameter.init.kind == Init::Kind::kOnes
                            ? 1.0f
                            : static_cast<float>(parameter.init.stddev) *
                                  normal_at(seed, piece.name, static_cast<uint64_t>(global));
        data[at] = convert(v);
      });
    };
    switch (value.dtype()) {
      case DType::kF32: fill(value.data<float>(), [](float v) { return v; }); break;
      case DType::kBF16: fill(value.data<BF16>(), to_bf16); break;
      default: fill(value.data<F16>(), [](float v) { return to_f16(v); });
    }
  }
}

void copy_piece_in(const Tensor& box_values, const Piece& piece, const Tensor& local) {
  require_fits(box_values, piece, local);
  copy_piece(box_values.raw(), local.raw(), piece, local, true);
}

void copy_piece_out(const Tensor& local, const Piece& piece, const Tensor& box_values) {
  require_fits(box_values, piece, local);
  copy_piece(local.raw(), box_values.raw(), piece, local, false);
}

}  // namespace trireme
