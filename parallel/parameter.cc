#include "parallel/parameter.h"

#include <algorithm>
#include <cstring>

#include "tensor/cpu/transpose.h"
#include "tensor/on_device.h"
#include "tensor/rng.h"

namespace trireme {
namespace {

// Calls fn(local element, element of the global tensor) for each element, by all threads.
template <class Fn>
void for_each_element(const Piece& piece, const Shape& local, Fn&& fn) {
  constexpr int64_t kFew = 1 << 14;
  if (piece.box.rank() == 1) {
#pragma omp parallel for schedule(static) if (piece.box.length[0] > kFew)
    for (int64_t i = 0; i < piece.box.length[0]; ++i) fn(piece.row + i, piece.box.start[0] + i);
    return;
  }
  const int64_t columns = local[1], box_columns = piece.box.length[1], global_columns = piece.global[1];
#pragma omp parallel for schedule(static) if (piece.box.numel() > kFew)
  for (int64_t i = 0; i < piece.box.length[0]; ++i)
    for (int64_t j = 0; j < box_columns; ++j) {
      const int64_t at = piece.transposed ? (piece.row + j) * columns + i : (piece.row + i) * columns + j;
      fn(at, (piece.box.start[0] + i) * global_columns + piece.box.start[1] + j);
    }
}

void require_fits(const Tensor& box_values, const Piece& piece, const Tensor& local) {
  check_on_host("a piece of a weight", "its file's part", box_values);
  TRIREME_ASSERT(box_values.numel() == piece.box.numel() && box_values.dtype() == local.dtype());
  TRIREME_ASSERT(piece.row + piece.rows() <= local.dim(0));
  TRIREME_ASSERT(piece.box.rank() == 1 || piece.box.length[piece.transposed ? 0 : 1] == local.dim(1));
}

void copy_bytes(void* to, const void* from, int64_t num_bytes) {
  constexpr int64_t kPart = 1 << 20;
#pragma omp parallel for schedule(static) if (num_bytes > 2 * kPart)
  for (int64_t at = 0; at < num_bytes; at += kPart)
    std::memcpy(static_cast<char*>(to) + at, static_cast<const char*>(from) + at,
                static_cast<size_t>(std::min(kPart, num_bytes - at)));
}

void copy_piece(const void* from, void* to, const Piece& piece, const Tensor& local, bool in) {
  const size_t element = size_of(local.dtype());
  if (!piece.transposed) {  // whole rows, one after another, on both sides
    const int64_t row_bytes = static_cast<int64_t>(element) * (local.rank() == 2 ? local.dim(1) : 1);
    const int64_t offset = piece.row * row_bytes;
    if (in) copy_bytes(static_cast<char*>(to) + offset, from, piece.rows() * row_bytes);
    else copy_bytes(to, static_cast<const char*>(from) + offset, piece.rows() * row_bytes);
  } else {
    const int64_t rows = piece.box.length[0], columns = piece.box.length[1], width = local.dim(1);
    const size_t offset = static_cast<size_t>(piece.row * width) * element;
    if (in)
      cpu::transpose(from, columns, static_cast<char*>(to) + offset, width, rows, columns, static_cast<int64_t>(element));
    else
      cpu::transpose(static_cast<const char*>(from) + offset, width, to, columns, columns, rows, static_cast<int64_t>(element));
  }
}

// Rows [row, row + rows) of `local`, whatever its rank.
Tensor rows_of(const Piece& piece, const Tensor& local) { return local.rows(piece.row, piece.row + piece.rows()); }
Piece from_first_row(Piece piece) {
  piece.row = 0;
  return piece;
}

}  // namespace

void allocate_values(const ParameterList& parameters, DType dtype, Device device) {
  for (const auto& p : parameters.all()) p->value = empty(p->shape, dtype, device);
}

void initialize(const Parameter& parameter, uint64_t seed) {
  const Tensor value = on_host(parameter.value) ? parameter.value : empty(parameter.value.shape(), parameter.value.dtype());
  std::memset(value.raw(), 0, value.num_bytes());
  for (const Piece& piece : parameter.pieces) {
    if (parameter.init.kind == Init::Kind::kZeros) break;
    const uint64_t name_stream = stream_of(piece.name);
    auto fill = [&](auto* data, auto convert) {
      for_each_element(piece, value.shape(), [&](int64_t at, int64_t global) {
        const float v = parameter.init.kind == Init::Kind::kOnes
                            ? 1.0f
                            : static_cast<float>(parameter.init.stddev) *
                                  normal_at(seed, name_stream, static_cast<uint64_t>(global));
        data[at] = convert(v);
      });
    };
    switch (value.dtype()) {
      case DType::kF32: fill(value.data<float>(), [](float v) { return v; }); break;
      case DType::kBF16: fill(value.data<BF16>(), to_bf16); break;
      default: fill(value.data<F16>(), [](float v) { return to_f16(v); });
    }
  }
  if (!on_host(parameter.value)) copy(value, parameter.value);
}

void copy_piece_in(const Tensor& box_values, const Piece& piece, const Tensor& local) {
  require_fits(box_values, piece, local);
  if (on_host(local)) return copy_piece(box_values.raw(), local.raw(), piece, local, true);
  const Tensor there = rows_of(piece, local);
  if (!piece.transposed) return copy(box_values.detach().reshape(there.shape()), there);
  const Tensor turned = empty(there.shape(), local.dtype());
  copy_piece(box_values.raw(), turned.raw(), from_first_row(piece), turned, true);
  copy(turned, there);
}

void copy_piece_out(const Tensor& local, const Piece& piece, const Tensor& box_values) {
  require_fits(box_values, piece, local);
  if (on_host(local)) return copy_piece(local.raw(), box_values.raw(), piece, local, false);
  const Tensor there = rows_of(piece, local);
  if (!piece.transposed) return copy(there, box_values.reshape(there.shape()));
  const Tensor here = to_device(there, Device::cpu());
  copy_piece(here.raw(), box_values.raw(), from_first_row(piece), here, false);
}

}  // namespace trireme
