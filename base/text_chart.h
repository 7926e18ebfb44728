// Curves in a terminal: for runs on machines where no picture can be looked at.
#pragma once

#include <string>
#include <vector>

#include "base/chart.h"

namespace trireme {

// The curves of line_chart_svg in `columns` by `rows` characters, title and legend included, each series with
// a sign of its own (* o + x # @). Plain ASCII around the names; ends with a new line. Sizes below 30 by 8
// are raised to that. Throws ShapeError where x and y of a series differ in length.
std::string line_chart_text(const std::vector<Series>& series, const ChartOptions& options = {},
                            int columns = 78, int rows = 20);

}  // namespace trireme
