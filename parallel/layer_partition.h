// Which layers of a model make up each piece of a pipeline (a stage, or a virtual stage; see schedule.h).
#pragma once

#include <vector>

#include "base/error.h"

namespace trireme {

// Layers begin .. end - 1.
struct LayerRange {
  int begin, end;
  int size() const { return end - begin; }
  bool operator==(const LayerRange&) const = default;
};

// Cost of the layers and of what else the first and last piece do, in one unit, e.g. that of a plain layer.
struct LayerCosts {
  double first_piece = 0;      // the embedding
  double last_piece = 0;       // the final norm, the head and the loss
  std::vector<double> layers;  // one for each layer; empty: 1 for each
};

// Cuts layers 0 .. layers - 1 into consecutive pieces of at least one layer, such that the costliest piece
// costs as little as can be and, among such cuts, the squares of the costs sum to the least; of equals, the
// one with the larger pieces first: 5 layers in 2 pieces are 3 + 2. Dynamic programming, O(layers^2 *
// pieces). Throws ConfigError for more pieces than layers, more than 1024 layers, and costs that are negative
// or not finite.
std::vector<LayerRange> partition_layers(int layers, int pieces, const LayerCosts& costs = {});

// The pieces of an explicit list, as given in parallel.layers_per_stage. Throws ConfigError unless it names
// one count of at least 1 for each piece and the counts sum to `layers`.
std::vector<LayerRange> partition_layers(int layers, int pieces, const std::vector<int>& layers_per_piece);

}  // namespace trireme
