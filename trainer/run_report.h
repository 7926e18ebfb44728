// What is left of a run to read: the closing table, and the curve of its losses.
#pragma once

#include <string>

#include "base/chart.h"
#include "trainer/metrics.h"

namespace trireme {

// The table, lines of "name  value" under a heading, ending without a newline. What is not known (an MFU of
// 0, no validation) is left out.
std::string summary_table(const RunSummary& summary);

// Training loss and its moving average, and validation loss, each by step, as SVG. x and y of the two series
// alone are read; points that are not finite leave gaps.
std::string curve_svg(const Series& training, const Series& validation);

}  // namespace trireme
