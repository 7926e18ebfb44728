#include "base/text_chart.h"

#include <algorithm>
#include <cmath>

#include "base/axis.h"

namespace trireme {
namespace {

constexpr std::string_view kSigns = "*o+x#@";

// Puts `s` into a line so that it is centred on `column`, kept inside the line.
void place(std::string& line, int column, const std::string& s) {
  const int last_start = static_cast<int>(line.size()) - static_cast<int>(s.size());
  const int start = std::clamp(column - static_cast<int>(s.size()) / 2, 0, std::max(0, last_start));
  for (size_t i = 0; i < s.size() && start + i < line.size(); ++i) line[start + i] = s[i];
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

std::string line_chart_text(const std::vector<Series>& series, const ChartOptions& options, int columns,
                            int rows) {
  columns = std::clamp(columns, 30, 1000);
  rows = std::clamp(rows, 8, 1000);
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  const auto shown = [&](const Series& s, size_t i) {
    return Axis::can_show(s.x[i], options.log_x) && Axis::can_show(s.y[i], options.log_y);
  };
  std::string legend;
  for (size_t k = 0; k < series.size(); ++k) {
    const Series& s = series[k];
    check(s.x.size() == s.y.size(), "chart series \"", s.name, "\" has ", s.x.size(), " x and ", s.y.size(),
          " y");
    if (!s.name.empty()) legend += text(legend.empty() ? "" : "   ", kSigns[k % kSigns.size()], " ", s.name);
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!shown(s, i)) continue;
      x_low = std::min(x_low, s.x[i]);
      x_high = std::max(x_high, s.x[i]);
      y_low = std::min(y_low, s.y[i]);
      y_high = std::max(y_high, s.y[i]);
    }
  }
  const bool empty = x_low > x_high;
  const bool fixed_low = Axis::can_show(options.y_min, options.log_y);
  const bool fixed_high = Axis::can_show(options.y_max, options.log_y);
  if (fixed_low) y_low = options.y_min;
  if (fixed_high) y_high = options.y_max;

  std::string out;
  if (!options.title.empty()) out += options.title + "\n";
  if (!legend.empty()) out += legend + "\n";
  const int heading = static_cast<int>(!options.title.empty()) + static_cast<int>(!legend.empty());
  const int height = std::max(4, rows - heading - 2 - static_cast<int>(!options.x_label.empty()));
  const Axis y(y_low, y_high, options.log_y, height / 3 + 1, !fixed_low && !fixed_high);
  int margin = 0;
  for (double tick : y.ticks()) margin = std::max(margin, static_cast<int>(y.tick_label(tick).size()));
  margin = std::min(margin, columns / 3);
  const int width = columns - margin - 2;
  const Axis x(x_low, x_high, options.log_x, width / 9, false);

  std::vector<std::string> grid(height, std::string(width, ' '));
  // Earlier series are on top, so later ones are drawn first.
  for (size_t k = series.size(); k-- > 0;) {
    for (size_t i = 0; i < series[k].x.size(); ++i) {
      if (!shown(series[k], i)) continue;
      const double row = (1 - y.position(series[k].y[i])) * (height - 1);
      if (!(row > -0.5 && row < height - 0.5)) continue;  // outside fixed limits
      const int column = static_cast<int>(std::lround(x.position(series[k].x[i]) * (width - 1)));
      grid[std::lround(row)][std::clamp(column, 0, width - 1)] = kSigns[k % kSigns.size()];
    }
  }
  if (empty) place(grid[height / 2], width / 2, "no data");
  std::vector<std::string> labels(height);
  for (double tick : y.ticks())
    labels[std::clamp<long>(std::lround((1 - y.position(tick)) * (height - 1)), 0, height - 1)] =
        y.tick_label(tick);
  for (int r = 0; r < height; ++r) {
    const std::string label = labels[r].substr(0, margin);
    out += std::string(margin - label.size(), ' ') + label;
    out += trimmed((label.empty() ? " |" : " +") + grid[r]);
  }
  std::string frame(width, '-'), x_labels(columns, ' ');
  for (double tick : x.ticks()) {
    const int column =
        std::clamp(static_cast<int>(std::lround(x.position(tick) * (width - 1))), 0, width - 1);
    frame[column] = '+';
    place(x_labels, margin + 2 + column, x.tick_label(tick));
  }
  out += std::string(margin, ' ') + " +" + frame + "\n" + trimmed(x_labels);
  if (!options.x_label.empty()) {
    std::string line(std::max<size_t>(columns, options.x_label.size()), ' ');
    place(line, margin + 2 + width / 2, options.x_label);
    out += trimmed(line);
  }
  return out;
}

}  // namespace trireme
