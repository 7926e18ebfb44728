#include "model/load_weights.h"

#include <cstring>

namespace trireme {

void check_weights(const ShardedModel& model, const WeightSource& source) {
  for (const auto& p : model.parameters().all())
    for (const Piece& piece : p->pieces) source.expect(piece.name, piece.global);
}

void load_weights(const ShardedModel& model, const WeightSource& source) {
  check_weights(model, source);
  for (const auto& p : model.parameters().all()) {
    int64_t filled = 0;
    for (const Piece& piece : p->pieces) filled += piece.box.numel();
    if (filled < p->value.numel()) std::memset(p->value.raw(), 0, p->value.num_bytes());
    for (const Piece& piece : p->pieces)
      copy_piece_in(source.read_box(piece.name, piece.box, p->value.dtype()), piece, p->value);
  }
}

}  // namespace trireme
