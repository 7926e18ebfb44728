// The whole tensors of one pipeline stage's weights, in the model file's form, gathered from the stage's
// tensor ranks.
#pragma once

#include <string>
#include <vector>

#include "model/safetensors.h"
#include "model/sharded_model.h"

namespace trireme {

class StageGather {
 public:
  // Collective over the mesh: ranks tell what they hold. `model` outlives this.
  StageGather(const ShardedModel& model, DType dtype);

  // Whether this rank receives the stage's tensors: tensor rank 0 of data rank 0.
  bool writer() const { return writer_; }
  // Of this stage, on its writer; empty elsewhere. A tied embedding belongs to the first stage alone.
  const std::vector<SafetensorsSpec>& tensors() const { return tensors_; }
  // Names and bytes of every stage's tensors, on every rank.
  struct Named {
    std::string name;
    uint64_t num_bytes;
    int stage;
  };
  const std::vector<Named>& all_tensors() const { return all_; }

  // Fills `whole`, which has tensors() on the writer and is empty elsewhere. Collective over the tensor group
  // of data rank 0; other data ranks return at once.
  void gather(const std::vector<Tensor>& whole) const;

 private:
  struct Held {
    const Parameter* parameter;
    const Piece* piece;
  };
  struct Placed {
    size_t tensor;  // in tensors_
    Box box;
  };

  const ShardedModel& model_;
  DType dtype_;
  bool writer_ = false;
  std::vector<Held> mine_;                  // what this rank gives
  // On the writer: where the pieces of each tensor rank go, in their order.
  std::vector<std::vector<Placed>> placed_;
  std::vector<SafetensorsSpec> tensors_;
  std::vector<Named> all_;
};

}  // namespace trireme
