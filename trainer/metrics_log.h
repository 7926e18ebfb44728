// metrics.jsonl: what a run measured, one JSON object a line, each with "type" ("step", "evaluation",
// "summary"), "step" and "time" (seconds since 1970). Numbers that JSON cannot hold (NaN, infinities) and
// those not known are null.
#pragma once

#include <boost/json.hpp>
#include <filesystem>
#include <memory>
#include <vector>

#include "trainer/append_file.h"

namespace trireme {

struct EvaluationMetrics;
struct RunSummary;
struct StepMetrics;

boost::json::object to_json_line(const StepMetrics& metrics);
boost::json::object to_json_line(const EvaluationMetrics& metrics);
boost::json::object to_json_line(const RunSummary& summary);

class MetricsLog {
 public:
  // Opens the file, or makes it. Lines past resume_step are dropped (for 0 all), as is what is no such
  // object, e.g. the last line of a run that was killed within it; where there are any, the file is replaced
  // as a whole. Throws FileError, also for a file above 1 GiB.
  MetricsLog(const std::filesystem::path& path, int64_t resume_step);

  // The lines that were there and stay, in their order. Once only.
  std::vector<boost::json::object> take_kept() { return std::move(kept_); }
  int64_t num_damaged() const { return num_damaged_; }  // lines dropped though not past resume_step

  // Adds "time" and flushes. Throws FileError; the file then ends with the line before.
  void write(boost::json::object line);

 private:
  std::vector<boost::json::object> kept_;
  int64_t num_damaged_ = 0;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace trireme
