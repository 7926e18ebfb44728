#include "model/load_weights.h"

#include <algorithm>
#include <exception>

#include "tensor/on_device.h"
#include "tensor/ops/reduce.h"

namespace trireme {

namespace {

// Whether the files may lack it, and do: all of its pieces or none.
bool absent(const Parameter& p, const WeightSource& source, MissingHead missing) {
  return missing == MissingHead::kKeep && p.head && !p.pieces.empty() &&
         std::none_of(p.pieces.begin(), p.pieces.end(), [&](const Piece& piece) { return source.has(piece.name); });
}

void fill_from(const WeightSource& source, const Parameter& p) {
  int64_t filled = 0;
  for (const Piece& piece : p.pieces) filled += piece.box.numel();
  if (filled < p.value.numel()) trireme::fill(p.value, 0);
  for (const Piece& piece : p.pieces) {
    const Tensor view = source.view_rows(piece.name, piece.box, p.value.dtype());
    copy_piece_in(view.defined() ? view : source.read_box(piece.name, piece.box, p.value.dtype()), piece, p.value);
  }
}

// The whole parameter as a view, if its pieces lie in the file as they do in it.
Tensor view_of(const Parameter& p, const WeightSource& source, DType dtype) {
  std::shared_ptr<Tensor> first;
  const std::byte* end = nullptr;
  int64_t rows = 0;
  for (const Piece& piece : p.pieces) {
    if (piece.transposed || piece.row != rows) return {};
    const Tensor view = source.view_rows(piece.name, piece.box, dtype);
    const auto* begin = static_cast<const std::byte*>(view.raw());
    if (!view.defined() || (first && begin != end)) return {};
    if (!first) first = std::make_shared<Tensor>(view);
    end = begin + view.num_bytes();
    rows += piece.rows();
  }
  if (!first || rows != p.shape[0]) return {};
  return Tensor::from_memory(first->raw(), p.shape, dtype, Device::cpu(), first);
}

}  // namespace

std::vector<std::string> check_weights(const ShardedModel& model, const WeightSource& source, MissingHead missing) {
  std::vector<std::string> lacking;
  for (const auto& p : model.parameters().all()) {
    const bool keep = absent(*p, source, missing);
    for (const Piece& piece : p->pieces)
      if (keep) lacking.push_back(piece.name);
      else source.expect(piece.name, piece.global);
  }
  return lacking;
}

std::vector<std::string> load_weights(const ShardedModel& model, const WeightSource& source, MissingHead missing) {
  std::vector<std::string> lacking = check_weights(model, source, missing);
  for (const auto& p : model.parameters().all())
    if (!absent(*p, source, missing)) fill_from(source, *p);
  return lacking;
}

int64_t map_weights(const ShardedModel& model, const WeightSource& source, DType dtype) {
  check_weights(model, source);
  int64_t copied = 0;
  if (model.device().kind != DeviceKind::kCpu) {
    allocate_values(model.parameters(), dtype, model.device());
    for (const auto& p : model.parameters().all()) {
      fill_from(source, *p);
      copied += static_cast<int64_t>(p->value.num_bytes());
    }
    return copied;
  }
  std::vector<const Parameter*> copies;
  for (const auto& p : model.parameters().all()) {
    p->value = view_of(*p, source, dtype);
    if (p->value.defined()) continue;
    p->value = empty(p->shape, dtype);
    copied += static_cast<int64_t>(p->value.num_bytes());
    copies.push_back(p.get());
  }
  // By all threads: a large part of a start goes to it and to the pages that it touches for the first time.
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < copies.size(); ++i) {
    try {
      fill_from(source, *copies[i]);
    } catch (...) {
#pragma omp critical(map_weights_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
  return copied;
}

}  // namespace trireme
