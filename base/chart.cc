#include "base/chart.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/axis.h"

namespace trireme {
namespace {

const char* const kInk = "#1f2933";
const char* const kMuted = "#5b6673";
const char* const kGrid = "#e6e9ee";
const char* const kFrame = "#9aa5b1";
constexpr double kTickFont = 12, kLabelFont = 13, kTitleFont = 17, kLegendFont = 12.5;

struct Frame {
  double left, top, right, bottom;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

struct LegendEntry {
  std::string name, color;
  bool line = true, dashed = false, markers = false;
};

// Title, subtitle and legend from the top down; returns y of what is left. The legend wraps at the right
// margin.
double draw_heading(Svg& svg, const ChartOptions& options, double left,
                    const std::vector<LegendEntry>& legend) {
  double y = 16;
  if (!options.title.empty())
    svg.text(left, y += kTitleFont, options.title, {kTitleFont, kInk, TextAnchor::kStart, true, 0});
  if (!options.subtitle.empty())
    svg.text(left, y += 19, options.subtitle, {kLabelFont, kMuted, TextAnchor::kStart, false, 0});
  if (legend.empty()) return y + 16;
  y += 24;
  double x = left;
  for (const LegendEntry& e : legend) {
    const double swatch = e.line ? 36 : 22;
    const double width = swatch + Svg::text_width(e.name, kLegendFont) + 20;
    if (x > left && x + width > options.width_px - 10) {
      x = left;
      y += 20;
    }
    if (e.line) {
      svg.line(x, y - 4, x + 28, y - 4, {e.color, 2.5, e.dashed ? "6 4" : "", 1});
      if (e.markers) svg.circle(x + 14, y - 4, 3.5, {e.color, 0, "#ffffff", 1});
    } else {
      svg.rect(x, y - 11, 16, 13, {e.color, 2, "", 0});
    }
    svg.text(x + swatch, y, e.name, {kLegendFont, kInk, TextAnchor::kStart, false, 0});
    x += width;
  }
  return y + 16;
}

// Room for the widest label of the y axis, and for its name.
double left_margin(const Axis& y, const ChartOptions& options) {
  double widest = 0;
  for (double tick : y.ticks()) widest = std::max(widest, Svg::text_width(y.tick_label(tick), kTickFont));
  return widest + 18 + (options.y_label.empty() ? 6 : 26);
}

void draw_y_axis(Svg& svg, const Frame& f, const Axis& y, const std::string& label) {
  for (double tick : y.ticks()) {
    const double at = f.bottom - y.position(tick) * f.height();
    svg.line(f.left, at, f.right, at, {kGrid, 1, "", 1});
    svg.text(f.left - 8, at + 4, y.tick_label(tick), {kTickFont, kMuted, TextAnchor::kEnd, false, 0});
  }
  if (!label.empty())
    svg.text(20, (f.top + f.bottom) / 2, label, {kLabelFont, kInk, TextAnchor::kMiddle, false, -90});
}

void draw_x_axis(Svg& svg, const Frame& f, const Axis& x, const std::string& label) {
  for (double tick : x.ticks()) {
    const double at = f.left + x.position(tick) * f.width();
    svg.line(at, f.top, at, f.bottom, {kGrid, 1, "", 1});
    svg.line(at, f.bottom, at, f.bottom + 5, {kFrame, 1, "", 1});
    svg.text(at, f.bottom + 20, x.tick_label(tick), {kTickFont, kMuted, TextAnchor::kMiddle, false, 0});
  }
  if (!label.empty())
    svg.text((f.left + f.right) / 2, f.bottom + 42, label, {kLabelFont, kInk, TextAnchor::kMiddle, false, 0});
}

// Runs of points without a gap, in pixels, thinned to at most four a column.
std::vector<std::vector<SvgPoint>> runs_of(const Series& s, const ChartOptions& options, const Axis& x,
                                           const Axis& y, const Frame& f) {
  std::vector<std::vector<SvgPoint>> runs(1);
  std::vector<SvgPoint> column;
  const auto flush = [&] {
    if (column.size() <= 4) {
      runs.back().insert(runs.back().end(), column.begin(), column.end());
    } else {
      const auto by_y = [](const SvgPoint& a, const SvgPoint& b) { return a.y < b.y; };
      auto [low, high] = std::minmax_element(column.begin(), column.end(), by_y);
      if (low > high) std::swap(low, high);
      for (const SvgPoint& p : {column.front(), *low, *high, column.back()}) runs.back().push_back(p);
    }
    column.clear();
  };
  for (size_t i = 0; i < s.x.size(); ++i) {
    if (!Axis::can_show(s.x[i], options.log_x) || !Axis::can_show(s.y[i], options.log_y)) {
      flush();
      if (!runs.back().empty()) runs.emplace_back();
      continue;
    }
    // A point far outside fixed limits is drawn just outside, so that no coordinate is out of a viewer's
    // range.
    const double above = std::clamp(y.position(s.y[i]), -4.0, 5.0);
    const SvgPoint p{f.left + x.position(s.x[i]) * f.width(), f.bottom - above * f.height()};
    if (!column.empty() && std::floor(column.back().x) != std::floor(p.x)) flush();
    column.push_back(p);
  }
  flush();
  return runs;
}

void draw_series(Svg& svg, const Series& s, const std::string& color, const ChartOptions& options,
                 const Axis& x, const Axis& y, const Frame& f) {
  const StrokeStyle stroke{color, s.faint ? 1.2 : 2.2, s.dashed ? "6 4" : "", s.faint ? 0.4 : 1.0};
  for (const std::vector<SvgPoint>& run : runs_of(s, options, x, y, f)) {
    if (run.size() > 1) svg.polyline(run, stroke);
    // A point alone would be invisible.
    if (s.markers || run.size() == 1)
      for (const SvgPoint& p : run) svg.circle(p.x, p.y, s.markers ? 3.8 : 2, {color, 0, "#ffffff", 1});
  }
}

void check_size(const ChartOptions& options) {
  const auto good = [](double v) { return v >= 100 && v <= 20000; };
  check<ConfigError>(good(options.width_px) && good(options.height_px), "chart of ", options.width_px, " by ",
                     options.height_px, " pixels; use between 100 and 20000 each way");
}

}  // namespace

std::string line_chart_svg(const std::vector<Series>& series, const ChartOptions& options) {
  check_size(options);
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  std::vector<LegendEntry> legend;
  std::vector<std::string> colors;
  for (size_t k = 0; k < series.size(); ++k) {
    const Series& s = series[k];
    check(s.x.size() == s.y.size(), "chart series \"", s.name, "\" has ", s.x.size(), " x and ", s.y.size(),
          " y");
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!Axis::can_show(s.x[i], options.log_x) || !Axis::can_show(s.y[i], options.log_y)) continue;
      x_low = std::min(x_low, s.x[i]);
      x_high = std::max(x_high, s.x[i]);
      y_low = std::min(y_low, s.y[i]);
      y_high = std::max(y_high, s.y[i]);
    }
    colors.push_back(s.color.empty() ? chart_palette()[k % chart_palette().size()] : s.color);
    if (!s.name.empty())
      legend.push_back(
          {s.name, s.faint ? lighten(colors.back(), 0.6) : colors.back(), true, s.dashed, s.markers});
  }
  const bool empty = x_low > x_high;
  const bool fixed =
      Axis::can_show(options.y_min, options.log_y) || Axis::can_show(options.y_max, options.log_y);
  if (Axis::can_show(options.y_min, options.log_y)) y_low = options.y_min;
  if (Axis::can_show(options.y_max, options.log_y)) y_high = options.y_max;
  if (options.log_y && !fixed && !empty) {  // a little air, which a linear axis gets from whole ticks
    y_low /= 1.04;
    y_high *= 1.04;
  }
  const Axis y(y_low, y_high, options.log_y, static_cast<int>(options.height_px / 55), !fixed);
  const double left = left_margin(y, options);
  const double right = options.width_px - 24;
  const Axis x(x_low, x_high, options.log_x, static_cast<int>((right - left) / 85), false);

  Svg svg(options.width_px, options.height_px);
  const Frame f{left, draw_heading(svg, options, left, legend), right,
                options.height_px - (options.x_label.empty() ? 34 : 58)};
  if (f.height() < 20)
    throw ConfigError(text("chart of ", options.height_px, " pixels high has no room below its legend"));
  draw_y_axis(svg, f, y, options.y_label);
  draw_x_axis(svg, f, x, options.x_label);
  svg.line(f.left, f.top, f.left, f.bottom, {kFrame, 1, "", 1});
  svg.line(f.left, f.bottom, f.right, f.bottom, {kFrame, 1, "", 1});
  const double over = fixed ? 0 : 5;  // markers may stand on the frame, unless it cuts curves off
  svg.begin_clip(f.left - over, f.top - over, f.width() + 2 * over, f.height() + 2 * over);
  for (bool faint : {true, false})
    for (size_t k = 0; k < series.size(); ++k)
      if (series[k].faint == faint) draw_series(svg, series[k], colors[k], options, x, y, f);
  svg.end_clip();
  if (empty)
    svg.text((f.left + f.right) / 2, (f.top + f.bottom) / 2, "no data",
             {16, kMuted, TextAnchor::kMiddle, false, 0});
  return svg.finish();
}

std::string bar_chart_svg(const BarGroups& bars, const ChartOptions& options) {
  check_size(options);
  check<ConfigError>(!options.log_y, "a bar chart starts at 0; use a linear y axis");
  check(bars.values.size() == bars.series.size(), "bar chart has ", bars.values.size(),
        " rows of values for ", bars.series.size(), " series");
  double low = 0, high = 0;
  for (size_t s = 0; s < bars.values.size(); ++s) {
    check(bars.values[s].size() == bars.groups.size(), "bar chart series \"", bars.series[s], "\" has ",
          bars.values[s].size(), " values for ", bars.groups.size(), " groups");
    for (double v : bars.values[s]) {
      if (!Axis::can_show(v, false)) continue;
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  if (Axis::can_show(options.y_min, false)) low = std::min(options.y_min, 0.0);
  if (Axis::can_show(options.y_max, false)) high = std::max(options.y_max, 0.0);
  const Axis y(low, high == low ? low + 1 : high, false, static_cast<int>(options.height_px / 55), true);
  std::vector<LegendEntry> legend;
  const auto color = [](size_t s) { return chart_palette()[s % chart_palette().size()]; };
  if (bars.series.size() > 1)
    for (size_t s = 0; s < bars.series.size(); ++s)
      legend.push_back({bars.series[s], color(s), false, false, false});

  Svg svg(options.width_px, options.height_px);
  const double left = left_margin(y, options);
  const Frame f{left, draw_heading(svg, options, left, legend) + 8, options.width_px - 24,
                options.height_px - (options.x_label.empty() ? 34 : 58)};
  if (f.height() < 20)
    throw ConfigError(text("chart of ", options.height_px, " pixels high has no room below its legend"));
  draw_y_axis(svg, f, y, options.y_label);
  const double group_width = f.width() / std::max<size_t>(1, bars.groups.size());
  const double bar_width = std::min(90.0, group_width * 0.76 / std::max<size_t>(1, bars.series.size()));
  const double zero = f.bottom - y.position(0) * f.height();
  // Values stand above the bars (above 0 for negative ones) while the widest fits its bar.
  double font = 11.5;
  for (const auto& row : bars.values)
    for (double v : row)
      if (Axis::can_show(v, false))
        font = std::min(font, 11.5 * (bar_width + 2) / Svg::text_width(compact_number(v), 11.5));
  svg.begin_clip(f.left, f.top - 18, f.width(), f.height() + 18);
  for (size_t g = 0; g < bars.groups.size(); ++g) {
    const double middle = f.left + (g + 0.5) * group_width;
    for (size_t s = 0; s < bars.series.size(); ++s) {
      const double v = bars.values[s][g];
      if (!Axis::can_show(v, false)) continue;
      const double x = middle + (s - bars.series.size() * 0.5) * bar_width;
      const double end = f.bottom - std::clamp(y.position(v), -4.0, 5.0) * f.height();
      svg.rect(x + 1, std::min(zero, end), bar_width - 2, std::abs(zero - end), {color(s), 2, "", 0});
      if (font >= 8)
        svg.text(x + bar_width / 2, std::min(zero, end) - 5, compact_number(v),
                 {font, kInk, TextAnchor::kMiddle, false, 0});
    }
  }
  svg.end_clip();
  double group_font = kTickFont;
  for (const std::string& name : bars.groups)
    if (!name.empty()) group_font = std::min(group_font, (group_width - 4) / Svg::text_width(name, 1));
  for (size_t g = 0; g < bars.groups.size(); ++g)
    svg.text(f.left + (g + 0.5) * group_width, f.bottom + 20, bars.groups[g],
             {std::max(7.0, group_font), kInk, TextAnchor::kMiddle, false, 0});
  if (!options.x_label.empty())
    svg.text((f.left + f.right) / 2, f.bottom + 42, options.x_label,
             {kLabelFont, kInk, TextAnchor::kMiddle, false, 0});
  svg.line(f.left, zero, f.right, zero, {kFrame, 1, "", 1});
  if (bars.groups.empty() || bars.series.empty())
    svg.text((f.left + f.right) / 2, (f.top + f.bottom) / 2, "no data",
             {16, kMuted, TextAnchor::kMiddle, false, 0});
  return svg.finish();
}

std::vector<double> moving_average(const std::vector<double>& y, int window) {
  check<ConfigError>(window >= 1, "moving average over ", window, " points; use at least 1");
  std::vector<double> result;
  std::deque<double> last;
  for (double v : y) {
    if (std::isfinite(v)) last.push_back(v);
    if (last.size() > static_cast<size_t>(window)) last.pop_front();
    // Summed anew each time, so that a huge value leaves no rounding behind it.
    double sum = 0;
    for (double w : last) sum += w;
    result.push_back(std::isfinite(v) ? sum / last.size() : v);
  }
  return result;
}

}  // namespace trireme
