// A confusion matrix to look at.
#pragma once

#include <string>
#include <vector>

#include "tasks/scores_classification.h"

namespace trireme {

// A row a gold class, a column a predicted one, then how many there are and the share that was right. Columns
// are headed by the class's number, which stands before its name in each row.
std::string confusion_text(const ConfusionMatrix& matrix, const std::vector<std::string>& names);

// The same as a picture of its own (SVG): a cell's colour is its share of its row, its text the count and, where there is
// room, the share in percent; each cell says both in full when pointed at. Names that are too long are cut in the labels.
// `title` may be empty.
std::string confusion_svg(const ConfusionMatrix& matrix, const std::vector<std::string>& names,
                          const std::string& title = "");

// Both throw ShapeError where names are not one a class, the picture also above kMaxDrawnClasses.
constexpr int kMaxDrawnClasses = 200;

}  // namespace trireme
