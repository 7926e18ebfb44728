#include "tasks/confusion_chart.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;

ConfusionMatrix matrix_of(const std::vector<std::vector<int>>& counts) {
  ConfusionMatrix matrix(static_cast<int>(counts.size()));
  for (size_t g = 0; g < counts.size(); ++g)
    for (size_t p = 0; p < counts.size(); ++p)
      for (int i = 0; i < counts[g][p]; ++i) matrix.add(static_cast<int>(g), static_cast<int>(p));
  return matrix;
}
size_t count(const std::string& s, const std::string& part) {
  size_t n = 0;
  for (size_t at = s.find(part); at != s.npos; at = s.find(part, at + part.size())) ++n;
  return n;
}

TEST(ConfusionChart, AsTextHasARowAGoldClass) {
  EXPECT_EQ(confusion_text(matrix_of({{3, 1, 0}, {0, 12, 0}, {0, 0, 0}}), {"no", "perhaps", "\xC3\xA9t\xC3\xA9"}),
            "rows: gold, columns: predicted\n"
            "\n"
            "            0   1   2  total   recall\n"
            "0 no        3   1   0      4   75.0 %\n"
            "1 perhaps   0  12   0     12  100.0 %\n"
            "2 \xC3\xA9t\xC3\xA9       0   0   0      0        -\n");
}

TEST(ConfusionChart, AsPictureHasACountShareAndTooltipACell) {
  const std::string svg = confusion_svg(matrix_of({{3, 1}, {0, 12}}), {"no", "<b>\"yes\" & 'so'"}, "Test & <set>");
  EXPECT_EQ(count(svg, "<svg "), 1u);
  EXPECT_NE(svg.find("Test &amp; &lt;set&gt;"), svg.npos);
  EXPECT_NE(svg.find("16 examples, 93.75 % right"), svg.npos);
  EXPECT_NE(svg.find("no predicted as &lt;b&gt;&quot;yes&quot; &amp; 'so': 1 of 4, 25.00 %"), svg.npos);
  EXPECT_EQ(svg.find("<b>"), svg.npos);
  EXPECT_EQ(count(svg, "<title>"), 4u);
  EXPECT_NE(svg.find(">75.0 %<"), svg.npos);
  EXPECT_NE(svg.find(">12<"), svg.npos);
  EXPECT_EQ(count(svg, ">predicted<") + count(svg, ">gold<"), 2u);
}

TEST(ConfusionChart, LongNamesAreCutInLabelsAndWholeInTooltips) {
  const std::string name(40, 'x');
  const std::string svg = confusion_svg(matrix_of({{1, 0}, {0, 1}}), {name, "y"});
  EXPECT_NE(svg.find(">" + std::string(23, 'x') + "\xE2\x80\xA6<"), svg.npos);
  EXPECT_NE(svg.find(name + " predicted as y"), svg.npos);
}

TEST(ConfusionChart, SixtyClassesHaveALabelAndCellsEach) {
  std::vector<std::string> names;
  ConfusionMatrix matrix(60);
  for (int c = 0; c < 60; ++c) {
    names.push_back(text("class-", c));
    for (int i = 0; i <= c; ++i) matrix.add(c, i % 7 == 0 ? (c + 1) % 60 : c);
  }
  const std::string svg = confusion_svg(matrix, names);
  EXPECT_EQ(count(svg, "<title>"), 3600u);
  EXPECT_EQ(count(svg, ">class-59<"), 2u);
  EXPECT_EQ(count(svg, "rotate(-90"), 61u);
}

TEST(ConfusionChart, OfNothingIsDrawnToo) {
  EXPECT_NE(confusion_svg(ConfusionMatrix(2), {"a", "b"}).find("0 examples, none right"), std::string::npos);
}

TEST(ConfusionChart, RefusesWhatItCannotLabelOrDraw) {
  EXPECT_EQ(message_of<ShapeError>([] { confusion_svg(ConfusionMatrix(2), {"a"}); }),
            "a confusion matrix of 2 classes with 1 names");
  EXPECT_EQ(message_of<ShapeError>([] { confusion_text(ConfusionMatrix(2), {}); }),
            "a confusion matrix of 2 classes with 0 names");
  EXPECT_EQ(message_of<ShapeError>([] { confusion_svg(ConfusionMatrix(201), std::vector<std::string>(201, "a")); }),
            "a confusion matrix of 201 classes is too much to draw; draw at most 200");
}

}  // namespace
}  // namespace trireme
