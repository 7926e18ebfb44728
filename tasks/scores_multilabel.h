// How good predictions are where an example may have any number of labels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tasks/scores_classification.h"

namespace trireme {

struct MultiLabelScores {
  int64_t count = 0;            // examples
  double subset_accuracy = 0;   // share of the examples whose labels are all right
  double hamming_loss = 0;      // share of wrong decisions
  std::vector<PrecisionRecall> labels;
  std::vector<int64_t> support;  // examples that have the label
  PrecisionRecall micro;         // of all decisions together
  PrecisionRecall macro;         // mean over all labels; one that is neither gold nor predicted counts as 0
  PrecisionRecall weighted;      // mean over labels, each as often as it occurs in gold; 0 where none does
};

// gold, predicted: [examples, num_labels], row-major, each 0 or 1. Denominators of 0 as in scores_classification.h.
// Throws ShapeError for different sizes, a size that num_labels does not divide, other values, num_labels below 1, or
// without examples.
MultiLabelScores multi_label_scores(int num_labels, std::span<const uint8_t> gold, std::span<const uint8_t> predicted);

}  // namespace trireme
