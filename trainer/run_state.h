// Where a run is: all that is not weights or optimizer state. Random numbers and data order are functions of
// the seed and these counts, so nothing else is needed to go on.
#pragma once

#include <cstdint>
#include <limits>

#include "trainer/loss_scale.h"

namespace trireme {

struct RunState {
  int64_t step = 0;             // updates done, skipped ones included
  int64_t updates = 0;          // updates applied: what the optimizer's bias correction counts
  int64_t samples = 0;          // data position: the next sample's number
  int64_t tokens = 0;           // labelled tokens trained on
  int64_t skipped_in_a_row = 0;
  double train_s = 0;           // in steps that counted, over all starts
  double total_s = 0;           // of all starts, each up to its last save
  double first_loss = 0;        // of the run's first step that had one; 0: none yet
  double best_validation_loss = std::numeric_limits<double>::infinity();
  double best_metric = std::numeric_limits<double>::infinity();  // of early stopping and keep-best
  int64_t best_step = 0;
  int64_t evaluations_without_gain = 0;
  LossScale loss_scale;         // of f16 storage; else as it is made
  bool operator==(const RunState&) const = default;
};

}  // namespace trireme
