// The grid of ranks. Axes, slowest first: pp (pipeline stages), dp (data), cp (context), ep (experts), tp (tensor).
// Neighbours in a tensor group are neighbours in rank, so that the busiest axis stays on one host.
// A rank's place along an axis is that axis's communicator's rank(). Passed explicitly; nothing here is global.
#pragma once

#include <memory>
#include <string>

#include "comm/collective_table.h"
#include "comm/communicator.h"

namespace trireme {

struct MeshShape {
  int pp = 1, dp = 1, cp = 1, ep = 1, tp = 1;
  int world() const { return pp * dp * cp * ep * tp; }
};

// "pp=2 dp=1 tp=4", axes of size 1 left out ("1 rank" if all are).
std::string to_string(const MeshShape& shape);

class Mesh {
 public:
  // Collective over `world`. Throws ConfigError if shape.world() is not world.size(), or if cp or ep is above 1:
  // the axes have their place, their layers are not written.
  Mesh(Communicator& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  Communicator& world() const { return world_; }
  Communicator& tp() const { return *tp_; }
  Communicator& dp() const { return *dp_; }
  Communicator& pp() const { return *pp_; }
  // First and last stage of this pipeline, who share tied embeddings. Null on the stages between and where pp is 1.
  Communicator* pipeline_ends() const { return ends_.get(); }

  // The ways that the collectives of all axes, and of the world, take from here on: Communicator::use(). The same table on
  // all ranks.
  void use(const CollectiveTable& table) const;

  bool first_stage() const { return pp_->rank() == 0; }
  bool last_stage() const { return pp_->rank() == pp_->size() - 1; }

 private:
  MeshShape shape_;
  Communicator& world_;
  std::unique_ptr<Communicator> tp_, dp_, pp_, ends_;
};

}  // namespace trireme
