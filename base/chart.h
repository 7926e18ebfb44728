// Charts of runs, as SVG on a white ground: curves (loss against step) and grouped bars (bench figures). See
// also text_chart.h for the terminal.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "base/svg.h"

namespace trireme {

// A curve. Points that cannot be shown (not finite, or not above 0 on a logarithmic axis) leave a gap.
struct Series {
  std::string name;
  std::vector<double> x, y;  // of the same length; x ascending for the curve to make sense
  std::string color = "";    // "#rrggbb"; empty: the next of chart_palette()
  bool markers = false;      // a dot at each point: for series of few points, e.g. validation
  bool dashed = false;
  bool faint = false;  // behind the others and light, e.g. the raw loss behind its moving average
};

struct ChartOptions {
  std::string title, subtitle, x_label, y_label;
  bool log_x = false, log_y = false;
  // Fixed limits of y; what lies outside is cut off. NaN: from the data.
  double y_min = std::numeric_limits<double>::quiet_NaN();
  double y_max = std::numeric_limits<double>::quiet_NaN();
  double width_px = 860, height_px = 460;
};

// Curves with axes, grid, ticks and a legend. A curve of more points than pixels is thinned so that each
// column of pixels keeps its first, last, lowest and highest point; no peak is lost. Without a point to show,
// says "no data". Throws ShapeError where x and y of a series differ in length.
std::string line_chart_svg(const std::vector<Series>& series, const ChartOptions& options = {});

// values[s][g]: height of series s in group g, drawn from 0, with the value above the bar; NaN leaves the bar
// out.
struct BarGroups {
  std::vector<std::string> groups;  // along x
  std::vector<std::string> series;  // side by side within a group; in the legend if there are several
  std::vector<std::vector<double>> values;
};

// Throws ShapeError where values are not [series][groups]. log_y is not for bars, which start at 0: throws
// ConfigError.
std::string bar_chart_svg(const BarGroups& bars, const ChartOptions& options = {});

// Moving average over the last `window` points that are finite. Throws ConfigError for a window below 1.
std::vector<double> moving_average(const std::vector<double>& y, int window);

}  // namespace trireme
