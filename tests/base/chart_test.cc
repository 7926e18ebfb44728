#include "base/chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>

#include "base/axis.h"
#include "base/text_chart.h"
#include "tests/errors.h"

namespace trireme {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// What stands between each `before` and the `after` that follows it.
std::vector<std::string> all_between(const std::string& s, const std::string& before, char after) {
  std::vector<std::string> found;
  for (size_t at = s.find(before); at != std::string::npos; at = s.find(before, at + 1)) {
    const size_t start = at + before.size();
    found.push_back(s.substr(start, s.find(after, start) - start));
  }
  return found;
}

// The points of every curve drawn.
std::vector<std::vector<SvgPoint>> polylines(const std::string& svg) {
  std::vector<std::vector<SvgPoint>> result;
  for (const std::string& list : all_between(svg, "<polyline points=\"", '"')) {
    std::istringstream in(list);
    std::vector<SvgPoint> points;
    char comma = 0;
    for (SvgPoint p; in >> p.x >> comma >> p.y;) points.push_back(p);
    EXPECT_TRUE(in.eof()) << list;
    result.push_back(points);
  }
  return result;
}

// Every tag that opens is closed, in order: what a parser of XML would say first.
void expect_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = svg.find('<', svg.find("?>")); at != std::string::npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    ASSERT_EQ(tag.find('<'), std::string::npos) << tag;
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), tag.substr(1));
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
  }
  EXPECT_TRUE(open.empty());
}

std::vector<std::string> labels(const Axis& axis) {
  std::vector<std::string> result;
  for (double tick : axis.ticks()) result.push_back(axis.tick_label(tick));
  return result;
}

using testing::message_of;
using Strings = std::vector<std::string>;

TEST(Axis, TicksAreRound) {
  EXPECT_EQ(labels(Axis(0, 1, false, 6, true)), (Strings{"0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(Axis(0, 20000, false, 6, false)), (Strings{"0", "5k", "10k", "15k", "20k"}));
  EXPECT_EQ(labels(Axis(-3.2, 3.9, false, 6, true)), (Strings{"-4", "-2", "0", "2", "4"}));
  EXPECT_EQ(labels(Axis(2.9971, 2.9984, false, 5, true)), (Strings{"2.9970", "2.9975", "2.9980", "2.9985"}));
  EXPECT_EQ(labels(Axis(0, 6e-4, false, 4, true)), (Strings{"0", "2e-4", "4e-4", "6e-4"}));
  EXPECT_EQ(labels(Axis(1.2e6, 2.9e6, false, 5, false)), (Strings{"1.5M", "2.0M", "2.5M"}));
}

TEST(Axis, LogarithmicTicksAreDecadesOrParts) {
  EXPECT_EQ(labels(Axis(1e-4, 1e3, true, 8, false)),
            (Strings{"1e-4", "0.001", "0.01", "0.1", "1", "10", "100", "1000"}));
  EXPECT_EQ(labels(Axis(1, 100, true, 9, false)), (Strings{"1", "2", "5", "10", "20", "50", "100"}));
  EXPECT_EQ(labels(Axis(2, 10, true, 6, false)), (Strings{"2", "4", "6", "8", "10"}));
  const Axis axis(1, 100, true, 5, false);
  EXPECT_DOUBLE_EQ(axis.position(10), 0.5);
  EXPECT_DOUBLE_EQ(axis.position(1), 0);
  EXPECT_DOUBLE_EQ(axis.position(100), 1);
}

TEST(Axis, LinearPositionsRunFromLowToHigh) {
  const Axis axis(-1, 3, false, 5, false);
  EXPECT_DOUBLE_EQ(axis.position(-1), 0);
  EXPECT_DOUBLE_EQ(axis.position(0), 0.25);
  EXPECT_DOUBLE_EQ(axis.position(3), 1);
}

TEST(Axis, UnusableRangesStillHaveTicks) {
  const double inf = INFINITY, tiny = std::numeric_limits<double>::denorm_min();
  for (auto [low, high] : std::vector<std::pair<double, double>>{{inf, -inf},
                                                                 {kNan, 1},
                                                                 {0, 0},
                                                                 {5, 5},
                                                                 {-7, -7},
                                                                 {-1e299, 1e299},
                                                                 {0, tiny},
                                                                 {tiny, tiny},
                                                                 {1e-299, 1e299},
                                                                 {1e15, 1e15 + 1},
                                                                 {1, 1 + 1e-13},
                                                                 {3, 2}}) {
    for (bool logarithmic : {false, true}) {
      const Axis axis(low, high, logarithmic, 7, true);
      EXPECT_LT(axis.low(), axis.high()) << low << " " << high;
      EXPECT_LE(axis.ticks().size(), 12u) << low << " " << high;
      EXPECT_TRUE(std::is_sorted(axis.ticks().begin(), axis.ticks().end()));
      for (double tick : axis.ticks()) {
        EXPECT_GE(axis.position(tick), -1e-5) << low << " " << high;
        EXPECT_LE(axis.position(tick), 1 + 1e-5) << low << " " << high;
        EXPECT_FALSE(axis.tick_label(tick).empty());
      }
    }
  }
}

TEST(CompactNumber, KeepsAboutFourDigits) {
  EXPECT_EQ(compact_number(0), "0");
  EXPECT_EQ(compact_number(1234), "1234");
  EXPECT_EQ(compact_number(0.03125), "0.03125");
  EXPECT_EQ(compact_number(20000), "20k");
  EXPECT_EQ(compact_number(-1530000), "-1.53M");
  EXPECT_EQ(compact_number(3e-4), "3e-4");
  EXPECT_EQ(compact_number(6.02e23), "6.02e23");
}

TEST(Svg, TextIsEscaped) {
  Svg svg(100, 50);
  svg.text(1, 2, "a<b & \"c\"\x01 \xff \xc3\xa9");
  svg.rect(0, 0, 1, 1, {}, "1 < 2");
  const std::string out = svg.finish();
  EXPECT_NE(out.find(">a&lt;b &amp; &quot;c&quot;  \xef\xbf\xbd \xc3\xa9</text>"), std::string::npos) << out;
  EXPECT_NE(out.find("<title>1 &lt; 2</title>"), std::string::npos);
  EXPECT_NE(out.find("<rect width=\"100\" height=\"50\" fill=\"#ffffff\"/>"), std::string::npos);
  expect_well_formed(out);
}

TEST(Svg, LightenMixesWithWhite) {
  EXPECT_EQ(lighten("#204060", 0), "#204060");
  EXPECT_EQ(lighten("#204060", 1), "#ffffff");
  EXPECT_EQ(lighten("#000000", 0.5), "#808080");
}

TEST(LineChart, DrawsPointsWhereTheirValuesSay) {
  // y runs from 0 to 8 by whole ticks; 2 and 6 stand at a quarter and three quarters.
  const std::string svg = line_chart_svg({{"loss", {0, 5, 10}, {8, 2, 6}}}, {"Title", "Sub", "step", "nats"});
  expect_well_formed(svg);
  const auto curves = polylines(svg);
  ASSERT_EQ(curves.size(), 1u);
  ASSERT_EQ(curves[0].size(), 3u);
  const double top = curves[0][0].y, quarter = (curves[0][1].y - curves[0][0].y) / 3;
  EXPECT_NEAR(curves[0][2].y, top + quarter, 0.02);  // 6, from 8 at the top
  EXPECT_NEAR(curves[0][1].x, (curves[0][0].x + curves[0][2].x) / 2, 0.02);
  EXPECT_GT(curves[0][1].y, curves[0][2].y);  // lower values stand lower
  for (const char* word : {">Title<", ">Sub<", ">step<", ">nats<", ">loss<"})
    EXPECT_NE(svg.find(word), std::string::npos) << word;
}

TEST(LineChart, LogarithmicAxisSpacesRatiosEvenly) {
  ChartOptions options;
  options.log_y = true;
  const auto curves = polylines(line_chart_svg({{"", {0, 1, 2}, {100, 10, 1}}}, options));
  ASSERT_EQ(curves.at(0).size(), 3u);
  EXPECT_NEAR(curves[0][1].y - curves[0][0].y, curves[0][2].y - curves[0][1].y, 0.03);
}

TEST(LineChart, ValuesThatCannotBeShownLeaveGaps) {
  const Series s{"", {0, 1, 2, 3, 4, 5}, {1, 2, kNan, 3, 4, INFINITY}};
  const auto curves = polylines(line_chart_svg({s}));
  ASSERT_EQ(curves.size(), 2u);
  EXPECT_EQ(curves[0].size(), 2u);
  EXPECT_EQ(curves[1].size(), 2u);
  ChartOptions log;
  log.log_y = true;
  EXPECT_EQ(polylines(line_chart_svg({{"", {0, 1, 2, 3, 4}, {1, 2, 0, 3, 4}}}, log)).size(), 2u);
}

TEST(LineChart, SaysNoDataWithoutAPoint) {
  for (const std::vector<Series>& series : {std::vector<Series>{}, {{"a", {}, {}}}, {{"a", {1}, {kNan}}}}) {
    const std::string svg = line_chart_svg(series);
    EXPECT_NE(svg.find(">no data<"), std::string::npos);
    expect_well_formed(svg);
    EXPECT_NE(line_chart_text(series).find("no data"), std::string::npos);
  }
}

TEST(LineChart, ThinningKeepsEveryPeak) {
  Series s{"", {}, {}};
  for (int i = 0; i < 100000; ++i) {
    s.x.push_back(i);
    s.y.push_back(i == 61234 ? 100.0 : i == 23456 ? -100.0 : std::sin(i * 0.37));
  }
  const auto curves = polylines(line_chart_svg({s}));
  ASSERT_EQ(curves.size(), 1u);
  EXPECT_LT(curves[0].size(), 4000u);
  const auto by_y = [](const SvgPoint& a, const SvgPoint& b) { return a.y < b.y; };
  const auto [high, low] = std::minmax_element(curves[0].begin(), curves[0].end(), by_y);
  EXPECT_GT(low->y - high->y, 250);  // both peaks: the whole height of the axis
  const double width = curves[0].back().x - curves[0].front().x;
  EXPECT_NEAR((high->x - curves[0].front().x) / width, 0.61234, 0.002);
  EXPECT_NEAR((low->x - curves[0].front().x) / width, 0.23456, 0.002);
  EXPECT_TRUE(std::is_sorted(curves[0].begin(), curves[0].end(),
                             [](const SvgPoint& a, const SvgPoint& b) { return a.x < b.x; }));
}

TEST(LineChart, FixedLimitsScaleTheAxis) {
  ChartOptions options;
  options.y_min = 0;
  options.y_max = 4;
  const std::string svg = line_chart_svg({{"", {0, 1, 2}, {11, 4, 0}}}, options);
  const auto curves = polylines(svg);
  EXPECT_NE(svg.find(">4<"), std::string::npos);
  EXPECT_EQ(svg.find(">10<"), std::string::npos);
  EXPECT_NEAR((curves[0][2].y - curves[0][0].y) / (curves[0][2].y - curves[0][1].y), 11.0 / 4, 0.01);
  EXPECT_NE(svg.find("clip-path"), std::string::npos);
}

TEST(LineChart, ExtremeValuesAreDrawn) {
  for (const std::vector<double>& y :
       {std::vector<double>{-1e299, 1e299}, {1e-310, 2e-310}, {5, 5}, {1e15, 1e15 + 1}})
    for (bool logarithmic : {false, true}) {
      ChartOptions options;
      options.log_y = logarithmic;
      const std::string svg = line_chart_svg({{"", {1, 2}, y}}, options);
      EXPECT_EQ(svg.find("nan"), std::string::npos);
      EXPECT_EQ(svg.find("inf"), std::string::npos);
      expect_well_formed(svg);
    }
}

TEST(LineChart, RefusesSeriesThatDoNotFit) {
  EXPECT_EQ(message_of<ShapeError>([] {
              line_chart_svg({{"loss", {1, 2}, {1}}});
            }),
            "chart series \"loss\" has 2 x and 1 y");
  EXPECT_EQ(message_of<ShapeError>([] {
              line_chart_text({{"loss", {1, 2}, {1}}});
            }),
            "chart series \"loss\" has 2 x and 1 y");
  ChartOptions small;
  small.width_px = 10;
  EXPECT_EQ(message_of<ConfigError>([&] { line_chart_svg({}, small); }),
            "chart of 10 by 460 pixels; use between 100 and 20000 each way");
}

TEST(BarChart, HeightsAreProportionalToValues) {
  const std::string svg =
      bar_chart_svg({{"one", "two"}, {"a", "b"}, {{10, 20}, {5, kNan}}}, {"Bars", "", "", "tokens/s"});
  expect_well_formed(svg);
  std::vector<double> heights;
  for (const std::string& rect : all_between(svg, "<rect x=", '>'))
    if (rect.find(" rx=") != std::string::npos)
      heights.push_back(std::stod(all_between(rect, " height=\"", '"').at(0)));
  ASSERT_EQ(heights.size(), 2u + 3u);  // two in the legend, three bars
  EXPECT_NEAR(heights[2] / heights[3], 2, 0.01);
  EXPECT_NEAR(heights[4] / heights[2], 2, 0.01);
  for (const char* word : {">10<", ">20<", ">5<", ">one<", ">two<", ">a<", ">b<"})
    EXPECT_NE(svg.find(word), std::string::npos) << word;
}

TEST(BarChart, RefusesValuesThatDoNotFit) {
  EXPECT_EQ(message_of<ShapeError>([] {
              bar_chart_svg({{"g"}, {"a", "b"}, {{1}}});
            }),
            "bar chart has 1 rows of values for 2 series");
  EXPECT_EQ(message_of<ShapeError>([] {
              bar_chart_svg({{"g"}, {"a"}, {{1, 2}}});
            }),
            "bar chart series \"a\" has 2 values for 1 groups");
  ChartOptions log;
  log.log_y = true;
  EXPECT_EQ(message_of<ConfigError>([&] { bar_chart_svg({}, log); }),
            "a bar chart starts at 0; use a linear y axis");
  EXPECT_NE(bar_chart_svg({}).find(">no data<"), std::string::npos);
}

TEST(MovingAverage, AveragesTheLastFinitePoints) {
  const std::vector<double> y = moving_average({1, 3, kNan, 5, 1e18, 7, 9, 11}, 2);
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 2);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_EQ(y[3], 4);
  EXPECT_EQ(y[6], 8);
  EXPECT_EQ(y[7], 10);
  EXPECT_EQ(message_of<ConfigError>([] { moving_average({1}, 0); }),
            "moving average over 0 points; use at least 1");
}

TEST(TextChart, DrawsTheCurveInCharacters) {
  ChartOptions options;
  options.title = "loss";
  options.x_label = "step";
  EXPECT_EQ(
      line_chart_text({{"train", {0, 10, 20}, {4, 2, 0}}, {"validation", {0, 20}, {2, 2}}}, options, 30, 12),
      "loss\n"
      "* train   o validation\n"
      "4 +*\n"
      "  |\n"
      "  |\n"
      "2 +o            *            o\n"
      "  |\n"
      "  |\n"
      "0 +                          *\n"
      "  ++------------+------------+\n"
      "   0           10           20\n"
      "              step\n");
}

}  // namespace
}  // namespace trireme
