// What a run shows while it goes: one line of a terminal that is redrawn, or plain lines, each flushed.
#pragma once

#include <chrono>
#include <ostream>
#include <string>
#include <string_view>

#include "trainer/metrics.h"

namespace trireme {

std::string format_count(double value);        // "950", "12.3k", "4.56M", "7.89G", "1.20T"
std::string format_bytes(size_t bytes);        // "512 MiB", "1.50 GiB"
std::string format_duration(double seconds);   // "0:01:05", "27:00:00"; "?" for what is no time
// What a terminal would obey (control characters, carriage returns included) becomes '?'; newlines and tabs
// stay.
std::string printable(std::string_view text);

// kAuto decided for standard output: kBar on a terminal whose width is known, kPlain elsewhere. MPI launchers
// give ranks a terminal of their own, without a width, whatever they pass the output on to.
ProgressStyle resolve_style(ProgressStyle style);
int terminal_width();  // of standard output, in columns; 80 if not known

// "step 20/100  loss 3.2104  lr 3.00e-04  grad 1.25  12.3k tok/s  MFU 41.2%  1.20 GiB  ETA 0:12:03"; an MFU
// of 0 is left out; " skipped" for a skipped step.
std::string step_line(const StepMetrics& metrics, int64_t total_steps);
std::string evaluation_line(const EvaluationMetrics& metrics);

class Progress {
 public:
  // `style` is none of kAuto. kNone: steps and evaluations are not shown; lines are. `width` is that of the
  // bar's line.
  Progress(std::ostream& out, ProgressStyle style, int64_t total_steps, int width);
  ~Progress();  // ends the bar's line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // kPlain: a line if `log`. kBar: redraws, for steps without `log` at most ten times a second.
  void step(const StepMetrics& metrics, bool log);
  void evaluation(const EvaluationMetrics& metrics);
  void line(std::string_view text);  // above the bar; made printable()
  void finish();                     // the bar stays as it is, and output goes on below

 private:
  void draw();

  std::ostream& out_;
  const ProgressStyle style_;
  const int64_t total_steps_;
  const int width_;
  std::string bar_;  // as it stands on the terminal; empty: none
  std::chrono::steady_clock::time_point drawn_;
};

}  // namespace trireme
