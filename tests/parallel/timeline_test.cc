#include "parallel/timeline.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/parallel/schedule_shapes.h"

namespace trireme {
namespace {

using testing::message_of;

// The number that attribute `name` has in `tag`.
double attribute(const std::string& tag, const std::string& name) {
  const std::string before = " " + name + "=\"";
  const size_t at = tag.find(before);
  EXPECT_NE(at, std::string::npos) << name << " in " << tag;
  return at == std::string::npos ? NAN : std::stod(tag.substr(at + before.size()));
}

// The box whose tooltip starts with `what`.
std::string box_of(const std::string& svg, const std::string& what) {
  const size_t at = svg.find("<title>" + what);
  EXPECT_NE(at, std::string::npos) << what;
  if (at == std::string::npos) return "";
  const size_t start = svg.rfind("<rect", at);
  return svg.substr(start, at - start);
}

size_t count(const std::string& s, const std::string& part) {
  size_t n = 0;
  for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + part.size())) ++n;
  return n;
}

TEST(TimelineSvg, BoxesStandWhereTheirTimesSay) {
  const Schedule s = make_schedule("zb-h1", {2, 3, 1});
  TimelineOptions options;
  options.title = timeline_title(s);
  const std::string svg = timeline_svg(s.shape, simulate(s), options);
  EXPECT_EQ(count(svg, "<title>"), 2u * 3 * 3);  // a tooltip for each action
  const std::string first = box_of(svg, "forward of micro-batch 0, stage 0: 0 to 1 ticks");
  const std::string second = box_of(svg, "forward of micro-batch 1, stage 0: 1 to 2 ticks");
  const std::string other_stage = box_of(svg, "forward of micro-batch 0, stage 1: 1 to 2 ticks");
  const std::string input = box_of(svg, "backward-input of micro-batch 0, stage 0: 3 to 4 ticks");
  const double tick = attribute(second, "x") - attribute(first, "x");
  EXPECT_GT(tick, 10);
  EXPECT_NEAR(attribute(input, "x"), attribute(first, "x") + 3 * tick, 0.05);
  EXPECT_NEAR(attribute(first, "width"), tick - 1, 0.05);  // a white line between boxes
  EXPECT_EQ(attribute(other_stage, "x"), attribute(second, "x"));
  EXPECT_GT(attribute(other_stage, "y"), attribute(first, "y"));
  // Three passes, three colours.
  const auto color = [](const std::string& tag) { return tag.substr(tag.find("fill=") + 6, 7); };
  const std::string weight = box_of(svg, "backward-weight of micro-batch 0, stage 0");
  EXPECT_NE(color(first), color(input));
  EXPECT_NE(color(weight), color(input));
  EXPECT_NE(color(weight), color(first));
  for (const char* word :
       {">zb-h1, 2 stages, 3 micro-batches<",
        ">bubble 10.0 %, 10 ticks, activations of at most 2 "
        "micro-batches held<",
        ">forward<", ">backward, inputs<", ">backward, weights<", ">stage 1<", ">idle (bubble)<", ">ticks<"})
    EXPECT_EQ(count(svg, word), 1u) << word;
}

TEST(TimelineSvg, LaterChunksAreLighter) {
  const Schedule s = make_schedule("interleaved", {2, 2, 3});
  const std::string svg = timeline_svg(s.shape, simulate(s));
  int last = 0;
  for (int chunk = 0; chunk < 3; ++chunk) {
    const std::string box = box_of(svg, text("forward of micro-batch 1, chunk ", chunk, ", stage 0"));
    const int red = std::stoi(box.substr(box.find("fill=\"#") + 7, 2), nullptr, 16);
    EXPECT_GT(red, last);
    last = red;
  }
}

TEST(TimelineSvg, DrawsMeasuredTimesFromTheFirstStart) {
  const ScheduleShape shape{2, 1, 1};
  const std::vector<TimedAction> run = {{0, {Pass::kForward, 0, 0}, 100.0, 100.5},
                                        {1, {Pass::kForward, 0, 0}, 100.5, 101.0},
                                        {1, {Pass::kBackward, 0, 0}, 101.0, 102.0},
                                        {0, {Pass::kBackward, 0, 0}, 102.0, 103.0}};
  TimelineOptions options{"step 900 <measured>", "s", 900};
  const std::string svg = timeline_svg(shape, summarize(shape, run), options);
  EXPECT_NE(svg.find(">step 900 &lt;measured&gt;<"), std::string::npos);
  EXPECT_NE(svg.find("stage 1: 0.5 to 1 s<"), std::string::npos);
  EXPECT_NE(svg.find("width=\"900\""), std::string::npos);
  EXPECT_NE(svg.find("bubble 50.0 %, 3 s"), std::string::npos);
}

TEST(TimelineSvg, LeavesOutNumbersThatDoNotFit) {
  const Schedule s = make_schedule("gpipe", {2, 300, 1});
  const Simulation times = simulate(s);
  EXPECT_EQ(count(timeline_svg(s.shape, times), ">299</text>"), 0u);
  TimelineOptions wide;
  wide.width_px = 20000;
  EXPECT_EQ(count(timeline_svg(s.shape, times, wide), ">299</text>"), 2u * 2);
}

TEST(TimelineSvg, DrawsNothingOfAnEmptyRun) {
  const ScheduleShape shape{2, 4, 1};
  const std::string svg = timeline_svg(shape, summarize(shape, {}));
  EXPECT_NE(svg.find(">stage 1<"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(count(timeline_text(shape, summarize(shape, {})), "stage "), 2u);
}

TEST(TimelineSvg, RefusesWhatIsTooMuchToDraw) {
  const Schedule s = make_schedule("1f1b", {8, 4000, 1});
  EXPECT_EQ(
      message_of<ConfigError>([&] { timeline_svg(s.shape, simulate(s)); }),
      "timeline of 64000 actions is too much to draw; draw at most 50000, of fewer micro-batches or stages");
  const Schedule small = make_schedule("1f1b", {1, 1, 1});
  TimelineOptions options;
  options.width_px = 30;
  EXPECT_EQ(message_of<ConfigError>([&] { timeline_svg(small.shape, simulate(small), options); }),
            "timeline of 30 pixels; use between 300 and 20000, or 0 to let the schedule decide");
}

TEST(TimelineText, ShowsEveryActionInItsPlace) {
  Schedule s = make_schedule("1f1b", {2, 3, 1});
  EXPECT_EQ(timeline_text(s.shape, simulate(s), {timeline_title(s), "ticks", 0}),
            "1f1b, 2 stages, 3 micro-batches\n"
            "bubble 25.0 %, 12 ticks, activations of at most 2 micro-batches held\n"
            "stage 0 F0-F1-......B0====F2-B1====...B2====  25.0 %, 2\n"
            "stage 1 ...F0-B0====F1-B1====F2-B2====......  25.0 %, 1\n"
            "        F forward  B backward  . idle; then micro-batch; right: bubble, micro-batches held\n");
  s = make_schedule("zb-h1", {2, 2, 1});
  EXPECT_EQ(
      timeline_text(s.shape, simulate(s)),
      "2 stages, 2 micro-batches\n"
      "bubble 14.3 %, 7 ticks, activations of at most 2 micro-batches held\n"
      "stage 0 F0-F1-...B0=W0~B1=W1~  14.3 %, 2\n"
      "stage 1 ...F0-B0=F1-B1=W0~W1~  14.3 %, 2\n"
      "        F forward  B backward, inputs  W backward, weights  . idle; then micro-batch; right: bubble, "
      "micro-batches held\n");
  s = make_schedule("interleaved", {1, 1, 2});
  EXPECT_NE(timeline_text(s.shape, simulate(s)).find("\nstage 0 F0a-F0b-B0b=====B0a=====  0.0 %, 1\n"),
            std::string::npos);
}

TEST(TimelineText, FitsItsColumns) {
  const Schedule s = make_schedule("interleaved", {8, 32, 4});
  for (int columns : {40, 80, 200}) {
    const std::string out = timeline_text(s.shape, simulate(s), {}, columns);
    size_t start = out.find("\nstage 0 ") + 1;
    for (int stage = 0; stage < 8; ++stage) {
      const size_t end = out.find('\n', start);
      EXPECT_LE(end - start, static_cast<size_t>(columns)) << out.substr(start, end - start);
      start = end + 1;
    }
  }
}

}  // namespace
}  // namespace trireme
