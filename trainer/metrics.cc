#include "trainer/metrics.h"

#include <cmath>
#include <iostream>
#include <limits>
#include <optional>

#include "base/files.h"
#include "trainer/metrics_log.h"
#include "trainer/progress.h"
#include "trainer/run_report.h"
#include "trainer/tensorboard.h"

namespace trireme {

struct Reporter::Impl {
  std::filesystem::path dir;
  Progress progress;
  std::optional<MetricsLog> log;
  std::optional<EventFile> events;
  Series training, validation;  // of the curve
  bool log_warned = false, events_warned = false;

  Impl(const std::filesystem::path& dir, const LogSection& options, int64_t total_steps, int64_t resume_step,
       std::ostream* out)
      : dir(dir),
        progress(out ? *out : std::cout,
                 out && options.progress == ProgressStyle::kAuto ? ProgressStyle::kPlain
                                                                 : resolve_style(options.progress),
                 total_steps, terminal_width()) {
    if (options.jsonl) guarded(log_warned, [&] { open_log(resume_step); });
    if (options.tensorboard) guarded(events_warned, [&] { events.emplace(dir, resume_step); });
  }

  void warn(const std::string& line) { progress.line("warning: " + line); }

  // Metrics are not worth a run: what goes wrong with a file of them is said once, and training goes on.
  template <class Write>
  void guarded(bool& warned, const Write& write) {
    try {
      write();
    } catch (const std::exception& e) {
      if (!warned) warn(text(e.what(), "; training goes on, this file of metrics is incomplete"));
      warned = true;
    }
  }

  void open_log(int64_t resume_step) {
    log.emplace(dir / "metrics.jsonl", resume_step);
    for (const boost::json::object& line : log->take_kept()) {
      const boost::json::value* loss = line.if_contains("loss");
      if (!loss) continue;
      const double value =
          loss->is_number() ? loss->to_number<double>() : std::numeric_limits<double>::quiet_NaN();
      const double step = static_cast<double>(line.at("step").to_number<int64_t>());
      if (line.at("type") == "step") add(training, step, value);
      if (line.at("type") == "evaluation") add(validation, step, value);
    }
    if (log->num_damaged() > 0)
      warn(text((dir / "metrics.jsonl").string(), ": dropped ", log->num_damaged(),
                log->num_damaged() == 1 ? " damaged line" : " damaged lines"));
  }

  static void add(Series& series, double step, double value) {
    series.x.push_back(step);
    series.y.push_back(value);
  }

  template <class Metrics>
  void write_line(const Metrics& metrics) {
    if (log) guarded(log_warned, [&] { log->write(to_json_line(metrics)); });
  }

  void write_event(int64_t step, const std::vector<Scalar>& scalars) {
    if (events) guarded(events_warned, [&] { events->write(step, scalars); });
  }
};

Reporter::Reporter(const std::filesystem::path& dir, const LogSection& options, int64_t total_steps,
                   int64_t resume_step, std::ostream* out)
    : impl_(std::make_unique<Impl>(dir, options, total_steps, resume_step, out)) {}

Reporter::~Reporter() = default;

void Reporter::step(const StepMetrics& m, bool log) {
  impl_->progress.step(m, log);
  if (!log) return;
  Impl::add(impl_->training, static_cast<double>(m.step), m.loss);
  std::vector<Scalar> scalars = {{"train/loss", m.loss},
                                 {"train/learning_rate", m.learning_rate},
                                 {"train/grad_norm", m.grad_norm},
                                 {"train/tokens_per_s", m.tokens_per_s}};
  if (m.mfu > 0) scalars.push_back({"train/mfu", m.mfu});
  impl_->write_event(m.step, scalars);
  impl_->write_line(m);
}

void Reporter::evaluation(const EvaluationMetrics& m) {
  impl_->progress.evaluation(m);
  Impl::add(impl_->validation, static_cast<double>(m.step), m.loss);
  std::vector<Scalar> values = {{"validation/loss", m.loss}};
  if (m.scores.empty()) values.push_back({"validation/perplexity", std::exp(m.loss)});
  for (const auto& [name, score] : m.scores) values.push_back({"validation/" + name, score});
  impl_->write_event(m.step, values);
  impl_->write_line(m);
}

void Reporter::note(const std::string& line) { impl_->progress.line(line); }

void Reporter::warning(const std::string& line) { impl_->warn(line); }

void Reporter::summary(const RunSummary& summary) {
  impl_->write_line(summary);
  bool warned = false;
  impl_->guarded(warned, [&] {
    write_file_atomically(impl_->dir / "curve.svg", curve_svg(impl_->training, impl_->validation));
  });
  impl_->progress.finish();
  impl_->progress.line(summary_table(summary));
}

}  // namespace trireme
