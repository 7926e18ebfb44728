// Writes SVG 1.1: rectangles, lines and text on a white ground. Our own charts (chart.h) and timelines draw
// with it, so that a run makes its pictures itself. Coordinates are pixels, y downwards. Numbers are written
// with two decimals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace trireme {

struct SvgPoint {
  double x, y;
};

enum class TextAnchor { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  std::string color = "#1f2933";
  TextAnchor anchor = TextAnchor::kStart;
  bool bold = false;
  double rotate_degrees = 0;  // about (x, y), clockwise
};

struct StrokeStyle {
  std::string color = "#1f2933";
  double width = 1;
  std::string dash = "";  // as stroke-dasharray: "4 3"; empty: solid
  double opacity = 1;
};

struct FillStyle {
  std::string color = "#1f2933";
  double radius = 0;        // of the corners
  std::string stroke = "";  // colour of the border; empty: none
  double stroke_width = 1;
};

class Svg {
 public:
  Svg(double width, double height);

  // `tooltip` is shown by browsers over the shape; empty: none.
  void rect(double x, double y, double width, double height, const FillStyle& fill,
            std::string_view tooltip = {});
  void circle(double x, double y, double radius, const FillStyle& fill);
  void line(double x1, double y1, double x2, double y2, const StrokeStyle& stroke);
  void polyline(const std::vector<SvgPoint>& points, const StrokeStyle& stroke);
  void polygon(const std::vector<SvgPoint>& points, const FillStyle& fill);
  // `content` may hold any bytes: markup is escaped; control characters and bytes that are not UTF-8 are
  // replaced.
  void text(double x, double y, std::string_view content, const TextStyle& style = {});
  // What is drawn until end_clip() shows inside the rectangle only. Not nested.
  void begin_clip(double x, double y, double width, double height);
  void end_clip();

  // The document. Text is drawn in the reader's sans-serif font.
  std::string finish() const;

  // About how wide a text will be: fonts differ, so leave some room.
  static double text_width(std::string_view content, double size);

 private:
  double width_, height_;
  int num_clips_ = 0;
  std::string body_;
};

// Colours that stay apart for colour-blind readers, on paper and on screens.
const std::vector<std::string>& chart_palette();

// "#rrggbb" mixed with white: amount 0 is the colour itself, 1 is white. REQUIRES: color has that form.
std::string lighten(const std::string& color, double amount);

}  // namespace trireme
