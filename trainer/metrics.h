// What a run reports while it goes and when it ends. Rank 0 only; others hold no Reporter.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace trireme {

struct StepMetrics {
  int64_t step = 0;
  double loss = 0, learning_rate = 0, grad_norm = 0;
  int64_t tokens = 0;          // trained on so far
  double tokens_per_s = 0;     // over the last logging interval
  double mfu = 0;              // model FLOP/s over the measured GEMM rate of the ranks' threads; 0: not known
  double step_s = 0;
  size_t memory_bytes = 0;     // peak resident of the largest rank
  double eta_s = 0;
  bool skipped = false;
};

struct EvaluationMetrics {
  int64_t step = 0;
  double loss = 0;             // of language models, perplexity is exp(loss)
  bool best = false;
  std::vector<std::pair<std::string, double>> scores = {};  // of a task
};

// Shares of this start's wall time, averaged over ranks; they sum to total_s. Losses, tokens/s and the ratio
// are those of the whole run.
struct RunSummary {
  int64_t steps = 0, tokens = 0;
  double total_s = 0, tokens_per_s = 0, mfu = 0;
  double compute_s = 0, communication_s = 0, bubble_s = 0, optimizer_s = 0, data_s = 0, evaluation_s = 0,
         checkpoint_s = 0, other_s = 0;
  double earlier_s = 0;             // of the starts before, each up to its last save
  double effective_time_ratio = 0;  // time in steps that counted, over total_s and earlier_s
  size_t peak_memory_bytes = 0;
  double first_loss = 0, last_loss = 0, best_validation_loss = 0;
  std::vector<std::pair<std::string, double>> scores = {};  // of a task
};

class Reporter {
 public:
  // Opens DIR/metrics.jsonl (appended to on resume, lines past `resume_step` dropped),
  // DIR/events.out.tfevents... and the terminal's progress (a bar on a terminal, plain lines elsewhere, by
  // log.progress), which goes to `out` (null: standard output; else plain unless log.progress says
  // otherwise). A file of metrics that cannot be opened or written, here or later, is a warning, given once;
  // nothing here throws for it.
  Reporter(const std::filesystem::path& dir, const LogSection& options, int64_t total_steps,
           int64_t resume_step, std::ostream* out = nullptr);
  ~Reporter();

  void step(const StepMetrics& metrics,
            bool log);  // log: a line, an event and a JSON line, beside the bar's progress
  void evaluation(const EvaluationMetrics& metrics);
  void note(const std::string& line);     // above the bar
  void warning(const std::string& line);
  // The closing table, and DIR/curve.svg: training loss (of logged steps) and validation loss by step, from
  // those that metrics.jsonl held at a resume on.
  void summary(const RunSummary& summary);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
