#include "parallel/timeline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "base/axis.h"
#include "base/svg.h"

namespace trireme {
namespace {

constexpr size_t kMaxDrawn = 50000;
const char* const kInk = "#1f2933";
const char* const kMuted = "#5b6673";
const char* const kIdle = "#eceff3";

struct PassLook {
  const char* color;
  char letter, filler;
};
PassLook look_of(Pass pass) {
  switch (pass) {
    case Pass::kForward: return {"#2f6fc0", 'F', '-'};
    case Pass::kBackward:
    case Pass::kBackwardInput: return {"#d9691e", 'B', '='};
    case Pass::kBackwardWeight: break;
  }
  return {"#1c8a6c", 'W', '~'};
}

// What holds for the whole picture.
struct Extent {
  double first = 0;     // earliest start
  double shortest = 0;  // shortest action that takes time
  size_t num_actions = 0;
  std::array<bool, 4> has_pass{};
};
Extent extent_of(const Simulation& times) {
  Extent e;
  e.first = INFINITY;
  e.shortest = INFINITY;
  for (const auto& actions : times.stages) {
    for (const TimedAction& t : actions) {
      e.first = std::min(e.first, t.start);
      if (t.end > t.start) e.shortest = std::min(e.shortest, t.end - t.start);
      ++e.num_actions;
      e.has_pass[static_cast<int>(t.action.pass)] = true;
    }
  }
  if (e.num_actions == 0) e.first = 0;
  if (!std::isfinite(e.shortest)) e.shortest = 1;
  return e;
}

std::string percent(double fraction) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f %%", 100 * fraction);
  return buffer;
}

std::string shape_title(const ScheduleShape& shape) {
  return text(shape.stages, shape.stages == 1 ? " stage, " : " stages, ", shape.micro_batches,
              shape.micro_batches == 1 ? " micro-batch" : " micro-batches",
              shape.chunks == 1 ? "" : text(", ", shape.chunks, " chunks a stage"));
}

// Activations held, in micro-batches of a whole stage.
std::string held(const ScheduleShape& shape, int peak_live) {
  return compact_number(static_cast<double>(peak_live) / shape.chunks);
}

std::string summary_line(const ScheduleShape& shape, const Simulation& times, const std::string& unit) {
  int most = 0;
  for (const StageSummary& s : times.summaries) most = std::max(most, s.peak_live);
  return text("bubble ", percent(times.bubble_fraction), ", ", compact_number(times.total), " ", unit,
              ", activations of at most ", held(shape, most),
              most == shape.chunks ? " micro-batch" : " micro-batches", " held");
}

// Chunk 0 in full colour, the last one light.
std::string shade(const ScheduleShape& shape, const Action& action) {
  const double step = shape.chunks > 1 ? 0.62 / (shape.chunks - 1) : 0;
  return lighten(look_of(action.pass).color, step * action.chunk);
}
const char* label_color(const ScheduleShape& shape, const Action& action) {
  return shape.chunks > 1 && 0.62 * action.chunk / (shape.chunks - 1) > 0.4 ? kInk : "#ffffff";
}

// The swatches of what occurs.
void draw_legend(Svg& svg, double x, double y, const ScheduleShape& shape, const Extent& extent) {
  const auto entry = [&](const std::vector<std::string>& colors, const std::string& name) {
    for (const std::string& color : colors) {
      svg.rect(x, y - 11, 14, 13, {color, 2, "", 0});
      x += 15;
    }
    svg.text(x + 5, y, name, {12.5, kInk, TextAnchor::kStart, false, 0});
    x += 5 + Svg::text_width(name, 12.5) + 20;
  };
  for (Pass pass : {Pass::kForward, Pass::kBackward, Pass::kBackwardInput, Pass::kBackwardWeight}) {
    if (!extent.has_pass[static_cast<int>(pass)]) continue;
    std::vector<std::string> colors;
    for (int c = 0; c < std::min(shape.chunks, 8); ++c) colors.push_back(shade(shape, {pass, 0, c}));
    const char* name = pass == Pass::kBackwardInput    ? "backward, inputs"
                       : pass == Pass::kBackwardWeight ? "backward, weights"
                                                       : pass_name(pass);
    entry(colors, shape.chunks > 1 ? text(name, ", chunks 0 to ", shape.chunks - 1) : name);
  }
  entry({kIdle}, "idle (bubble)");
}

std::string chunk_letter(const ScheduleShape& shape, int chunk) {
  if (shape.chunks == 1) return "";
  return shape.chunks <= 26 ? std::string(1, static_cast<char>('a' + chunk)) : text(".", chunk);
}

std::string text_label(const ScheduleShape& shape, const Action& action) {
  return text(look_of(action.pass).letter, action.micro_batch, chunk_letter(shape, action.chunk));
}

}  // namespace

std::string timeline_title(const Schedule& schedule) {
  return schedule.name + ", " + shape_title(schedule.shape);
}

std::string timeline_svg(const ScheduleShape& shape, const Simulation& times,
                         const TimelineOptions& options) {
  const Extent extent = extent_of(times);
  check<ConfigError>(extent.num_actions <= kMaxDrawn, "timeline of ", extent.num_actions,
                     " actions is too much to draw; draw at most ", kMaxDrawn,
                     ", of fewer micro-batches or stages");
  check<ConfigError>(options.width_px == 0 || (options.width_px >= 300 && options.width_px <= 20000),
                     "timeline of ", options.width_px,
                     " pixels; use between 300 and 20000, or 0 to let the schedule decide");
  const double row = 34, gap = 8, top = 100, left = 78, right = 132;
  const double total = times.total > 0 ? times.total : 1;
  const double width = options.width_px > 0
                           ? options.width_px
                           : left + right + std::clamp(total / extent.shortest * 27, 620.0, 1490.0);
  const double plot = width - left - right;
  const double bottom = top + shape.stages * (row + gap);
  Svg svg(width, bottom + 52);
  svg.text(20, 34, options.title.empty() ? shape_title(shape) : options.title,
           {17, kInk, TextAnchor::kStart, true, 0});
  svg.text(20, 54, summary_line(shape, times, options.time_unit), {13, kMuted, TextAnchor::kStart, false, 0});
  draw_legend(svg, 20, 80, shape, extent);
  svg.text(width - right + 14, top - 8, "bubble", {11, kMuted, TextAnchor::kStart, false, 0});
  svg.text(width - 20, top - 8, "held", {11, kMuted, TextAnchor::kEnd, false, 0});

  const Axis axis(0, total, false, std::max(3, static_cast<int>(plot / 90)), false);
  for (double tick : axis.ticks()) {
    const double x = left + axis.position(tick) * plot;
    svg.line(x, bottom, x, bottom + 5, {"#9aa5b1", 1, "", 1});
    svg.text(x, bottom + 19, axis.tick_label(tick), {12, kMuted, TextAnchor::kMiddle, false, 0});
  }
  svg.line(left, bottom, left + plot, bottom, {"#9aa5b1", 1, "", 1});
  svg.text(left + plot / 2, bottom + 39, options.time_unit, {13, kInk, TextAnchor::kMiddle, false, 0});

  // By the widest number, so that boxes of one width have a number either all or none.
  const double number_width = Svg::text_width(std::to_string(shape.micro_batches - 1), 1);
  for (int s = 0; s < shape.stages; ++s) {
    const double y = top + s * (row + gap);
    svg.text(left - 12, y + row / 2 + 4.5, text("stage ", s), {13, kInk, TextAnchor::kEnd, false, 0});
    svg.rect(left, y, plot, row, {kIdle, 0, "", 0});
    const StageSummary& summary = times.summaries[s];
    svg.text(width - right + 14, y + row / 2 + 4.5, percent(summary.bubble_fraction),
             {13, kInk, TextAnchor::kStart, false, 0});
    svg.text(width - 20, y + row / 2 + 4.5, held(shape, summary.peak_live),
             {13, kInk, TextAnchor::kEnd, false, 0});
    for (const TimedAction& t : times.stages[s]) {
      const double x = left + (t.start - extent.first) / total * plot;
      const double box = (t.end - t.start) / total * plot;
      const double border = box >= 5 ? 1 : 0;  // white between boxes, where it leaves something of them
      svg.rect(x + border / 2, y, box - border, row, {shade(shape, t.action), box >= 8 ? 2.0 : 0.0, "", 0},
               text(describe(shape, t.action), ", stage ", s, ": ", compact_number(t.start - extent.first),
                    " to ", compact_number(t.end - extent.first), " ", options.time_unit));
      const double font = std::min(13.0, (box - 2) / number_width);
      if (font >= 6.5)
        svg.text(x + box / 2, y + row / 2 + font * 0.36, std::to_string(t.action.micro_batch),
                 {font, label_color(shape, t.action), TextAnchor::kMiddle, false, 0});
    }
  }
  return svg.finish();
}

std::string timeline_text(const ScheduleShape& shape, const Simulation& times, const TimelineOptions& options,
                          int columns) {
  const Extent extent = extent_of(times);
  const std::string left_of_last = text("stage ", shape.stages - 1, " ");
  columns = std::clamp(columns, 40, 100000);
  // A shortest box that holds the longest label, if the row then fits; otherwise the width there is.
  const int wanted =
      static_cast<int>(text_label(shape, {Pass::kForward, shape.micro_batches - 1, shape.chunks - 1}).size());
  const double room = columns - static_cast<double>(left_of_last.size()) - 17;
  const double total = times.total > 0 ? times.total : 1;
  double scale = (wanted + 1) / extent.shortest;
  if (total * scale > room) scale = room / total;
  const int width = std::max(1, static_cast<int>(std::lround(total * scale)));

  std::string out = (options.title.empty() ? shape_title(shape) : options.title) + "\n" +
                    summary_line(shape, times, options.time_unit) + "\n";
  for (int s = 0; s < shape.stages; ++s) {
    std::string line(width, '.');
    for (const TimedAction& t : times.stages[s]) {
      const int begin = static_cast<int>(std::lround((t.start - extent.first) * scale));
      const int end = std::min(width, static_cast<int>(std::lround((t.end - extent.first) * scale)));
      const PassLook look = look_of(t.action.pass);
      const std::string label = text_label(shape, t.action);
      const std::string shown =
          static_cast<int>(label.size()) <= end - begin ? label : std::string(1, look.letter);
      for (int c = begin; c < end; ++c)
        line[c] = c - begin < static_cast<int>(shown.size()) ? shown[c - begin] : look.filler;
    }
    std::string name = text("stage ", s);
    name.resize(left_of_last.size(), ' ');
    const StageSummary& summary = times.summaries[s];
    out +=
        name + line + "  " + percent(summary.bubble_fraction) + ", " + held(shape, summary.peak_live) + "\n";
  }
  const bool split = extent.has_pass[static_cast<int>(Pass::kBackwardWeight)];
  out += std::string(left_of_last.size(), ' ');
  out += split ? "F forward  B backward, inputs  W backward, weights" : "F forward  B backward";
  out += "  . idle; then micro-batch";
  if (shape.chunks > 1) out += " and chunk";
  return out + "; right: bubble, micro-batches held\n";
}

}  // namespace trireme
