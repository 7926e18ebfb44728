// Classes, several labels or numbers for whole texts or pairs of texts (Devlin et al. 2018, arXiv:1810.04805,
// section 4.1).
#pragma once

#include "tasks/scores_classification.h"
#include "tasks/scores_multilabel.h"
#include "tasks/task.h"

namespace trireme {

const Task& sequence_classification();

// report.json and, for as many classes as can be drawn, confusion.svg.
std::vector<std::pair<std::string, std::string>> report_files(const ConfusionMatrix& matrix,
                                                              const std::vector<std::string>& names);

}  // namespace trireme
