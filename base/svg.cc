#include "base/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"

namespace trireme {
namespace {

std::string number(double v) {
  TRIREME_ASSERT(std::isfinite(v));
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.2f", std::clamp(v, -1e9, 1e9));
  std::string s = buffer;
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

std::string attribute(const char* name, double value) {
  return std::string(" ") + name + "=\"" + number(value) + "\"";
}

void append_escaped(std::string& out, std::string_view s) {
  while (!s.empty()) {
    const size_t good = valid_utf8_prefix(s);
    for (char c : s.substr(0, good)) {
      switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20)
            out += ' ';  // no control character may stand in XML
          else
            out += c;
      }
    }
    s.remove_prefix(good);
    if (s.empty()) break;
    append_utf8(out, 0xFFFD);
    s.remove_prefix(1);
  }
}

std::string attribute(const char* name, std::string_view value) {
  std::string out = std::string(" ") + name + "=\"";
  append_escaped(out, value);
  return out + "\"";
}

std::string fill_attributes(const FillStyle& fill) {
  std::string out = attribute("fill", fill.color);
  if (!fill.stroke.empty())
    out += attribute("stroke", fill.stroke) + attribute("stroke-width", fill.stroke_width);
  return out;
}

std::string stroke_attributes(const StrokeStyle& stroke) {
  std::string out = attribute("stroke", stroke.color) + attribute("stroke-width", stroke.width);
  if (!stroke.dash.empty()) out += attribute("stroke-dasharray", stroke.dash);
  if (stroke.opacity < 1) out += attribute("stroke-opacity", stroke.opacity);
  return out;
}

std::string points_attribute(const std::vector<SvgPoint>& points) {
  std::string out = " points=\"";
  for (size_t i = 0; i < points.size(); ++i) {
    if (i > 0) out += ' ';
    out += number(points[i].x);
    out += ',';
    out += number(points[i].y);
  }
  out += '"';
  return out;
}

}  // namespace

Svg::Svg(double width, double height) : width_(width), height_(height) {}

void Svg::rect(double x, double y, double width, double height, const FillStyle& fill,
               std::string_view tooltip) {
  body_ += "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", std::max(0.0, width)) +
           attribute("height", std::max(0.0, height)) + fill_attributes(fill);
  if (fill.radius > 0) body_ += attribute("rx", fill.radius);
  if (tooltip.empty()) {
    body_ += "/>\n";
    return;
  }
  body_ += "><title>";
  append_escaped(body_, tooltip);
  body_ += "</title></rect>\n";
}

void Svg::circle(double x, double y, double radius, const FillStyle& fill) {
  body_ += "<circle" + attribute("cx", x) + attribute("cy", y) + attribute("r", radius) +
           fill_attributes(fill) + "/>\n";
}

void Svg::line(double x1, double y1, double x2, double y2, const StrokeStyle& stroke) {
  body_ += "<line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) + attribute("y2", y2) +
           stroke_attributes(stroke) + "/>\n";
}

void Svg::polyline(const std::vector<SvgPoint>& points, const StrokeStyle& stroke) {
  body_ += "<polyline" + points_attribute(points) +
           " fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\"" + stroke_attributes(stroke) +
           "/>\n";
}

void Svg::polygon(const std::vector<SvgPoint>& points, const FillStyle& fill) {
  body_ += "<polygon" + points_attribute(points) + fill_attributes(fill) + "/>\n";
}

void Svg::text(double x, double y, std::string_view content, const TextStyle& style) {
  body_ += "<text" + attribute("x", x) + attribute("y", y) + attribute("font-size", style.size) +
           attribute("fill", style.color);
  if (style.anchor == TextAnchor::kMiddle) body_ += " text-anchor=\"middle\"";
  if (style.anchor == TextAnchor::kEnd) body_ += " text-anchor=\"end\"";
  if (style.bold) body_ += " font-weight=\"bold\"";
  if (style.rotate_degrees != 0)
    body_ +=
        " transform=\"rotate(" + number(style.rotate_degrees) + " " + number(x) + " " + number(y) + ")\"";
  body_ += ">";
  append_escaped(body_, content);
  body_ += "</text>\n";
}

void Svg::begin_clip(double x, double y, double width, double height) {
  const std::string id = "clip" + std::to_string(num_clips_++);
  body_ += "<clipPath id=\"" + id + "\"><rect" + attribute("x", x) + attribute("y", y) +
           attribute("width", width) + attribute("height", height) + "/></clipPath>\n<g clip-path=\"url(#" +
           id + ")\">\n";
}

void Svg::end_clip() { body_ += "</g>\n"; }

std::string Svg::finish() const {
  const std::string w = number(width_), h = number(height_);
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" +
         w + "\" height=\"" + h + "\" viewBox=\"0 0 " + w + " " + h +
         "\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n<rect width=\"" + w +
         "\" height=\"" + h + "\" fill=\"#ffffff\"/>\n" + body_ + "</svg>\n";
}

double Svg::text_width(std::string_view content, double size) {
  double ems = 0;
  for (unsigned char c : content) {
    if ((c & 0xC0) == 0x80) continue;  // a continuation byte of UTF-8
    if (c == ' ' || c == '.' || c == ',' || c == 'i' || c == 'l' || c == ':')
      ems += 0.32;
    else if (c >= 'A' && c <= 'Z')
      ems += 0.70;
    else if (c == 'm' || c == 'w' || c == '%')
      ems += 0.90;
    else
      ems += 0.59;
  }
  return ems * size;
}

const std::vector<std::string>& chart_palette() {
  static const std::vector<std::string> palette = {"#2563b8", "#dd6b10", "#14866d", "#8b46b5",
                                                   "#c2334d", "#0f8fb0", "#9a7200", "#5f6b7a"};
  return palette;
}

std::string lighten(const std::string& color, double amount) {
  TRIREME_ASSERT(color.size() == 7 && color[0] == '#');
  std::string out = "#";
  for (int i = 1; i < 7; i += 2) {
    const int channel = std::stoi(color.substr(i, 2), nullptr, 16);
    char hex[8];
    std::snprintf(hex, sizeof hex, "%02x",
                  static_cast<int>(std::lround(channel + (255 - channel) * amount)) & 0xFF);
    out += hex;
  }
  return out;
}

}  // namespace trireme
