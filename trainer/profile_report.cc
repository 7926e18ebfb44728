#include "trainer/profile_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>

#include "base/axis.h"
#include "base/json.h"
#include "base/svg.h"

namespace trireme {
namespace {

constexpr const char* kTrackNames[] = {"phases", "pipeline", "compute", "communication", "communication beside compute"};

// The part of an event that is bytes.
struct PackedEvent {
  double begin, end, own, floor, num_bytes;
  int64_t step;
  int32_t micro_batch, chunk, stage, name_length;
  uint8_t track, pass, padding[6];
};

std::string printed(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

std::string in_columns(const std::string& name, const std::vector<std::string>& cells) {
  std::string line = name;
  line.resize(std::max<size_t>(line.size() + 1, 34), ' ');
  for (const std::string& cell : cells) line += std::string(cell.size() < 11 ? 11 - cell.size() : 1, ' ') + cell;
  return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

std::string ms(double seconds) { return printed("%.3f", seconds * 1e3); }

size_t num_steps(const RankEvents& ranks) {
  std::set<int64_t> steps;
  for (const auto& events : ranks)
    for (const ProfileEvent& e : events) steps.insert(e.step);
  return std::max<size_t>(1, steps.size());
}

const char* color_of(const ProfileEvent& e) {
  if (e.track == Track::kCommunication) return "#b3261e";
  if (e.track == Track::kBeside) return "#e8a33d";
  if (e.track == Track::kPhase) return e.name == "optimizer" ? "#7a4fb0" : "#9aa5b1";
  const auto starts = [&](const char* prefix) { return e.name.rfind(prefix, 0) == 0; };
  if (starts("linear") || starts("vocabulary_loss")) return "#2f6fc0";
  return starts("attention") ? "#d9691e" : "#1c8a6c";
}

}  // namespace

std::string pack_events(const std::vector<ProfileEvent>& events) {
  std::string out;
  for (const ProfileEvent& e : events) {
    const PackedEvent p{e.begin, e.end, e.own, e.floor, e.num_bytes, e.step, e.action.micro_batch, e.action.chunk,
                        e.stage, static_cast<int32_t>(e.name.size()), static_cast<uint8_t>(e.track),
                        static_cast<uint8_t>(e.action.pass), {}};
    out.append(reinterpret_cast<const char*>(&p), sizeof p);
    out += e.name;
  }
  return out;
}

std::vector<ProfileEvent> unpack_events(std::string_view bytes) {
  std::vector<ProfileEvent> events;
  while (!bytes.empty()) {
    PackedEvent p;
    check<FileError>(bytes.size() >= sizeof p, "events of a profile: ", bytes.size(), " bytes are no event");
    std::memcpy(&p, bytes.data(), sizeof p);
    bytes.remove_prefix(sizeof p);
    check<FileError>(p.name_length >= 0 && static_cast<size_t>(p.name_length) <= bytes.size() &&
                         p.track <= static_cast<uint8_t>(Track::kBeside) &&
                         p.pass <= static_cast<uint8_t>(Pass::kBackwardWeight),
                     "events of a profile: an event that no rank packs");
    events.push_back({static_cast<Track>(p.track), std::string(bytes.substr(0, p.name_length)), p.begin, p.end, p.own,
                      p.floor, p.num_bytes, p.step, {static_cast<Pass>(p.pass), p.micro_batch, p.chunk}, p.stage});
    bytes.remove_prefix(p.name_length);
  }
  return events;
}

std::vector<ProfileRow> profile_rows(const RankEvents& ranks) {
  std::map<std::pair<Track, std::string>, ProfileRow> rows;
  const double share = 1.0 / static_cast<double>(ranks.size() * num_steps(ranks));
  for (const auto& events : ranks)
    for (const ProfileEvent& e : events) {
      // Micro-batches of a pipeline are one row a pass.
      const std::string name = e.track != Track::kPipeline || e.stage < 0 ? e.name : pass_name(e.action.pass);
      ProfileRow& row = rows[{e.track, name}];
      row.track = e.track;
      row.name = name;
      row.calls += share;
      row.seconds += e.own * share;
      row.floor += e.floor * share;
      row.num_bytes += e.num_bytes * share;
    }
  std::vector<ProfileRow> sorted;
  for (auto& [key, row] : rows) sorted.push_back(std::move(row));
  std::stable_sort(sorted.begin(), sorted.end(), [](const ProfileRow& a, const ProfileRow& b) {
    return a.track != b.track ? a.track < b.track : a.seconds > b.seconds;
  });
  return sorted;
}

std::string profile_table(const RankEvents& ranks, const std::string& rates) {
  const std::vector<ProfileRow> rows = profile_rows(ranks);
  double step = 0;
  for (const ProfileRow& row : rows)
    if (row.track == Track::kPhase && row.name == "step") step = row.seconds;
  std::string out = text("time of a rank and a step: mean over ", ranks.size(), ranks.size() == 1 ? " rank, " : " ranks, ",
                         num_steps(ranks), num_steps(ranks) == 1 ? " step\n" : " steps\n", rates,
                         "\nfloor: the larger of operations over the rate of products and of bytes over that of a copy "
                         "(which tensors that stay in cache may beat);\ncollectives: latency and bytes at the rates "
                         "measured between the same ranks. Times are without what has a row of its own inside.\n");
  Track track = Track::kBeside;
  double sum = 0, floor = 0;
  const auto total = [&] {
    if (track == Track::kCompute || track == Track::kCommunication)
      out += in_columns("  together", {"", ms(sum), step > 0 ? printed("%.1f %%", 100 * sum / step) : "",
                                       floor > 0 ? ms(floor) : "", ""});
    sum = floor = 0;
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const ProfileRow& row = rows[i];
    if (i == 0 || row.track != track) {
      if (i > 0) total();
      track = row.track;
      const bool moves = track == Track::kCommunication || track == Track::kBeside;
      out += "\n" + in_columns(kTrackNames[static_cast<int>(track)],
                               {"calls", "ms", "of step", "floor ms", "x floor", moves ? "MB" : ""});
    }
    sum += row.seconds;
    floor += row.floor;
    out += in_columns("  " + row.name,
                      {printed("%.4g", row.calls), ms(row.seconds),
                       step > 0 ? printed("%.1f %%", 100 * row.seconds / step) : "", row.floor > 0 ? ms(row.floor) : "",
                       row.floor > 0 ? printed("%.2f", row.seconds / row.floor) : "",
                       row.num_bytes > 0 ? printed("%.3f", row.num_bytes / 1e6) : ""});
  }
  total();
  return out;
}

std::string trace_json(const RankEvents& ranks) {
  std::string out = "[";
  const char* separator = "\n";
  for (size_t r = 0; r < ranks.size(); ++r) {
    out += text(separator, R"({"ph":"M","name":"process_name","pid":)", r, R"(,"args":{"name":"rank )", r, R"("}})");
    separator = ",\n";
    out += text(separator, R"({"ph":"M","name":"process_sort_index","pid":)", r, R"(,"args":{"sort_index":)", r, "}}");
    for (int t = 0; t < 5; ++t) {
      out += text(separator, R"({"ph":"M","name":"thread_name","pid":)", r, R"(,"tid":)", t, R"(,"args":{"name":")",
                  kTrackNames[t], R"("}})");
      out += text(separator, R"({"ph":"M","name":"thread_sort_index","pid":)", r, R"(,"tid":)", t,
                  R"(,"args":{"sort_index":)", t, "}}");
    }
    for (const ProfileEvent& e : ranks[r]) {
      char times[96];
      std::snprintf(times, sizeof times, R"("ts":%.3f,"dur":%.3f)", e.begin * 1e6, (e.end - e.begin) * 1e6);
      out += text(separator, R"({"ph":"X","name":)", to_json(boost::json::value(e.name)), R"(,"cat":")",
                  kTrackNames[static_cast<int>(e.track)], R"(","pid":)", r, R"(,"tid":)", static_cast<int>(e.track), ',',
                  times, R"(,"args":{"step":)", e.step);
      if (e.num_bytes > 0) out += text(R"(,"bytes":)", static_cast<int64_t>(e.num_bytes));
      if (e.floor > 0) out += R"(,"floor_us":)" + printed("%.3f", e.floor * 1e6);
      if (e.track == Track::kPipeline && e.stage >= 0)
        out += text(R"(,"stage":)", e.stage, R"(,"micro_batch":)", e.action.micro_batch, R"(,"chunk":)", e.action.chunk);
      out += "}}";
    }
  }
  return out + "\n]\n";
}

std::string step_svg(const RankEvents& ranks, int64_t step) {
  const size_t shown = std::min(ranks.size(), kMaxDrawnRanks);
  double first = INFINITY, last = -INFINITY;
  for (size_t r = 0; r < shown; ++r)
    for (const ProfileEvent& e : ranks[r])
      if (e.step == step && e.track == Track::kPhase && e.name == "step") {
        first = std::min(first, e.begin);
        last = std::max(last, e.end);
      }
  const double total = last > first ? last - first : 1, lane = 30, thin = 15, gap = 12, top = 74, left = 78, plot = 1080;
  const double bottom = top + static_cast<double>(shown) * (lane + thin + gap), width = left + plot + 24;
  Svg svg(width, bottom + 50);
  svg.text(20, 32, text("Step ", step, " of ", ranks.size(), ranks.size() == 1 ? " rank" : " ranks", ", measured"),
           {17, "#1f2933", TextAnchor::kStart, true, 0});
  double x = 20;
  for (const auto& [color, name] : {std::pair("#2f6fc0", "products"), {"#d9691e", "attention"}, {"#1c8a6c", "row-wise"},
                                    {"#7a4fb0", "optimizer"}, {"#b3261e", "communication that compute waits for"},
                                    {"#e8a33d", "communication beside compute"}}) {
    svg.rect(x, 45, 14, 13, {color, 2, "", 0});
    svg.text(x + 19, 56, name, {12.5, "#1f2933", TextAnchor::kStart, false, 0});
    x += 19 + Svg::text_width(name, 12.5) + 20;
  }
  const Axis axis(0, total * 1e3, false, 10, false);
  for (double tick : axis.ticks()) {
    const double at = left + axis.position(tick) * plot;
    svg.line(at, top, at, bottom + 5, {"#dde2e8", 1, "", 1});
    svg.text(at, bottom + 19, axis.tick_label(tick), {12, "#5b6673", TextAnchor::kMiddle, false, 0});
  }
  svg.text(left + plot / 2, bottom + 39, "milliseconds", {13, "#1f2933", TextAnchor::kMiddle, false, 0});
  for (size_t r = 0; r < shown; ++r) {
    const double y = top + static_cast<double>(r) * (lane + thin + gap);
    svg.text(left - 12, y + lane / 2 + 4.5, text("rank ", r), {13, "#1f2933", TextAnchor::kEnd, false, 0});
    svg.rect(left, y, plot, lane, {"#eceff3", 0, "", 0});
    svg.begin_clip(left, y, plot, lane + thin);
    // What holds others is drawn first: ops come after what they ran inside of, by their begin.
    std::vector<const ProfileEvent*> drawn;
    for (const ProfileEvent& e : ranks[r])
      if (e.step == step && e.track != Track::kPipeline &&
          (e.track != Track::kPhase || e.name == "optimizer" || e.name == "data"))
        drawn.push_back(&e);
    std::stable_sort(drawn.begin(), drawn.end(), [](auto* a, auto* b) {
      return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
    });
    for (const ProfileEvent* e : drawn) {
      const bool moves = e->track == Track::kCommunication || e->track == Track::kBeside;
      const double box = std::max(0.15, (e->end - e->begin) / total * plot);
      const std::string color = color_of(*e);
      const bool backward = e->name.ends_with(" backward");
      std::string what = text(e->name, ": ", printed("%.3f ms", (e->end - e->begin) * 1e3));
      if (e->num_bytes > 0) what += printed(", %.3f MB", e->num_bytes / 1e6);
      svg.rect(left + (e->begin - first) / total * plot, moves ? y + lane : y, box, moves ? thin : lane,
               {backward ? lighten(color, 0.3) : color, 0, "", 0}, what);
    }
    svg.end_clip();
  }
  return svg.finish();
}

Simulation measured_pipeline(const ScheduleShape& shape, const RankEvents& ranks, const std::vector<int>& stage_ranks,
                             int64_t step) {
  std::vector<TimedAction> actions;
  for (int rank : stage_ranks)
    for (const ProfileEvent& e : ranks[static_cast<size_t>(rank)])
      if (e.track == Track::kPipeline && e.stage >= 0 && e.step == step)
        actions.push_back({e.stage, e.action, e.begin * 1e3, e.end * 1e3});
  return summarize(shape, actions);
}

}  // namespace trireme
