#include "tasks/confusion_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/svg.h"
#include "base/utf8.h"
#include "tasks/classification_report.h"

namespace trireme {
namespace {

const char* const kInk = "#1f2933";
const char* const kMuted = "#5b6673";
const char* const kGround = "#2563b8";
constexpr size_t kLongestLabel = 24;

std::string percent(double share, int decimals) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.*f %%", decimals, 100 * share);
  return buffer;
}

double share_of(const ConfusionMatrix& m, int gold, int predicted, int64_t in_row) {
  return in_row == 0 ? 0 : static_cast<double>(m.count(gold, predicted)) / static_cast<double>(in_row);
}

// At most kLongestLabel characters of a name.
std::string label_of(const std::string& name) {
  std::string shown = printable_name(name);
  if (columns_of(shown) <= kLongestLabel) return shown;
  size_t end = 0;
  for (size_t characters = 0; end < shown.size(); ++end)
    if ((shown[end] & 0xC0) != 0x80 && ++characters == kLongestLabel) break;
  return shown.substr(0, end) + "\xE2\x80\xA6";
}

std::string right(const std::string& s, size_t width) {
  return std::string(width - std::min(width, s.size()), ' ') + s;
}

// Sizes in pixels, by the number of classes.
struct Layout {
  double cell, font, left, top;
};

Layout layout_of(const std::vector<std::string>& labels) {
  Layout l{};
  const auto n = static_cast<double>(labels.size());
  l.cell = std::clamp(720 / n, 15.0, 84.0);
  l.font = std::clamp(l.cell * 0.62, 8.0, 13.0);
  double widest = 0;
  for (const std::string& label : labels) widest = std::max(widest, Svg::text_width(label, l.font));
  l.left = 44 + std::max(widest, 20.0) + 10;
  // Labels above stand upright where they would run into each other.
  l.top = 92 + (widest <= l.cell - 6 ? l.font + 4 : std::max(widest, 20.0)) + 8;
  return l;
}

void draw_legend(Svg& svg, double x, double y, double height) {
  constexpr int kSteps = 32;
  for (int i = 0; i < kSteps; ++i)
    svg.rect(x, y + height * i / kSteps, 14, height / kSteps + 0.5,
             {lighten(kGround, static_cast<double>(i) / (kSteps - 1)), 0, "", 0});
  svg.rect(x, y, 14, height, {"none", 0, "#9aa5b1", 1});
  const TextStyle style{11, kMuted, TextAnchor::kStart, false, 0};
  svg.text(x + 20, y + 9, "100 %", style);
  svg.text(x + 20, y + height / 2 + 4, "50 %", style);
  svg.text(x + 20, y + height, "0 %", style);
}

}  // namespace

std::string confusion_text(const ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  const int n = matrix.classes();
  check(names.size() == static_cast<size_t>(n), "a confusion matrix of ", n, " classes with ", names.size(), " names");
  const size_t digits = std::to_string(n - 1).size();
  size_t width = digits, name_width = 0;
  for (int g = 0; g < n; ++g) {
    name_width = std::max(name_width, columns_of(label_of(names[g])));
    for (int p = 0; p < n; ++p) width = std::max(width, std::to_string(matrix.count(g, p)).size());
  }
  std::string out = "rows: gold, columns: predicted\n\n" + std::string(digits + 1 + name_width, ' ');
  const size_t total_width = std::max<size_t>(5, std::to_string(matrix.total()).size());
  for (int p = 0; p < n; ++p) out += "  " + right(std::to_string(p), width);
  out += "  " + right("total", total_width) + "   recall\n";
  for (int g = 0; g < n; ++g) {
    const std::string label = label_of(names[g]);
    out += right(std::to_string(g), digits) + " " + label + std::string(name_width - columns_of(label), ' ');
    for (int p = 0; p < n; ++p) out += "  " + right(std::to_string(matrix.count(g, p)), width);
    const int64_t in_row = matrix.gold(g);
    out += "  " + right(std::to_string(in_row), total_width) + "  " +
           right(in_row == 0 ? "-" : percent(share_of(matrix, g, g, in_row), 1), 7) + "\n";
  }
  return out;
}

std::string confusion_svg(const ConfusionMatrix& matrix, const std::vector<std::string>& names,
                          const std::string& title) {
  const int n = matrix.classes();
  check(names.size() == static_cast<size_t>(n), "a confusion matrix of ", n, " classes with ", names.size(), " names");
  check(n <= kMaxDrawnClasses, "a confusion matrix of ", n, " classes is too much to draw; draw at most ",
        kMaxDrawnClasses);
  std::vector<std::string> labels;
  for (const std::string& name : names) labels.push_back(label_of(name));
  const Layout l = layout_of(labels);
  const double plot = l.cell * n, legend = l.left + plot + 24;
  Svg svg(std::max(legend + 70, 330.0), l.top + plot + 24);

  const int64_t total = matrix.total();
  svg.text(20, 30, title.empty() ? "Confusion matrix" : title, {17, kInk, TextAnchor::kStart, true, 0});
  svg.text(20, 50,
           text(total, total == 1 ? " example, " : " examples, ",
                total == 0 ? "none right"
                           : percent(static_cast<double>(matrix.correct()) / static_cast<double>(total), 2) + " right"),
           {13, kMuted, TextAnchor::kStart, false, 0});
  svg.text(l.left + plot / 2, 78, "predicted", {13, kInk, TextAnchor::kMiddle, true, 0});
  svg.text(30, l.top + plot / 2, "gold", {13, kInk, TextAnchor::kMiddle, true, -90});

  double widest = 0;
  for (const std::string& label : labels) widest = std::max(widest, Svg::text_width(label, l.font));
  const bool upright = widest > l.cell - 6;
  for (int c = 0; c < n; ++c) {
    const double middle = (c + 0.5) * l.cell;
    svg.text(l.left - 8, l.top + middle + l.font * 0.36, labels[c], {l.font, kInk, TextAnchor::kEnd, false, 0});
    if (upright)
      svg.text(l.left + middle + l.font * 0.36, l.top - 8, labels[c], {l.font, kInk, TextAnchor::kStart, false, -90});
    else
      svg.text(l.left + middle, l.top - 8, labels[c], {l.font, kInk, TextAnchor::kMiddle, false, 0});
  }

  const double border = l.cell >= 24 ? 1 : 0.5;
  for (int g = 0; g < n; ++g) {
    const int64_t in_row = matrix.gold(g);
    for (int p = 0; p < n; ++p) {
      const int64_t count = matrix.count(g, p);
      const double share = share_of(matrix, g, p, in_row), x = l.left + p * l.cell, y = l.top + g * l.cell;
      svg.rect(x + border / 2, y + border / 2, l.cell - border, l.cell - border,
               {count == 0 ? "#f4f6f8" : lighten(kGround, 1 - std::max(share, 0.04)), 0, "", 0},
               text(printable_name(names[g]), " predicted as ", printable_name(names[p]), ": ", count, " of ", in_row,
                    in_row == 0 ? "" : ", " + percent(share, 2)));
      if (count == 0) continue;
      const std::string number = std::to_string(count);
      const char* color = share > 0.5 ? "#ffffff" : kInk;
      const double font = std::min({14.0, (l.cell - 4) / Svg::text_width(number, 1), l.cell * 0.6});
      if (font < 6) continue;  // the colour and the tooltip tell
      const bool both = l.cell >= 44;
      svg.text(x + l.cell / 2, y + l.cell / 2 + (both ? -1.0 : font * 0.36), number,
               {font, color, TextAnchor::kMiddle, g == p, 0});
      if (both)
        svg.text(x + l.cell / 2, y + l.cell / 2 + 14, percent(share, 1), {10.5, color, TextAnchor::kMiddle, false, 0});
    }
  }
  draw_legend(svg, legend, l.top, std::min(plot, 160.0));
  svg.text(legend, l.top - 8, "of the row", {11, kMuted, TextAnchor::kStart, false, 0});
  return svg.finish();
}

}  // namespace trireme
