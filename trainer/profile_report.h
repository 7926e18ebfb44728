// What a profile shows, from the events of all ranks: a trace, a table, a picture. Pure functions of the events.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "parallel/simulator.h"
#include "trainer/machine_rates.h"

namespace trireme {

enum class Track : uint8_t { kPhase, kPipeline, kCompute, kCommunication, kBeside };

struct ProfileEvent {
  Track track = Track::kCompute;
  std::string name;      // "linear backward", "all_reduce tp", "optimizer", "forward of micro-batch 3"
  double begin = 0, end = 0;  // seconds since the profile began, on rank 0's clock
  double own = 0;        // seconds, without what is inside
  double floor = 0;      // seconds that it takes at least at the measured rates; 0: not counted
  double num_bytes = 0;  // communication: of the caller's input
  int64_t step = 0;
  Action action{};       // kPipeline
  int stage = 0;

  bool operator==(const ProfileEvent&) const = default;
};

// Events between ranks. unpack throws FileError for what pack does not write.
std::string pack_events(const std::vector<ProfileEvent>& events);
std::vector<ProfileEvent> unpack_events(std::string_view bytes);

using RankEvents = std::vector<std::vector<ProfileEvent>>;  // by rank

// Time of a rank and a step, on average, by name, the largest first.
struct ProfileRow {
  Track track;
  std::string name;
  double calls = 0, seconds = 0, floor = 0, num_bytes = 0;  // seconds: without what is inside
};
std::vector<ProfileRow> profile_rows(const RankEvents& ranks);

// For people. `rates`: a line that says what floors are counted with.
std::string profile_table(const RankEvents& ranks, const std::string& rates);

// Chrome's trace format, its JSON array form: complete events ("X") with times in microseconds, and names of the threads.
std::string trace_json(const RankEvents& ranks);

// One step: a row of compute and one of communication for each of the first kMaxDrawnRanks ranks.
constexpr size_t kMaxDrawnRanks = 16;
std::string step_svg(const RankEvents& ranks, int64_t step);

// The pipeline actions of one step and of given ranks, one a stage, in milliseconds. For timeline_svg().
Simulation measured_pipeline(const ScheduleShape& shape, const RankEvents& ranks, const std::vector<int>& stage_ranks,
                             int64_t step);

}  // namespace trireme
