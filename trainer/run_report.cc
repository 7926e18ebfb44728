#include "trainer/run_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "trainer/progress.h"

namespace trireme {
namespace {

constexpr size_t kMinPointsToSmooth = 20;
constexpr size_t kMaxPointsForMarkers = 60;

std::string number(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

void row(std::string& out, const char* name, const std::string& value) {
  char start[32];
  std::snprintf(start, sizeof start, "\n  %-22s", name);
  out += start + value;
}

}  // namespace

std::string summary_table(const RunSummary& s) {
  std::string out = "summary of the run";
  row(out, "steps", text(s.steps));
  row(out, "tokens", format_count(static_cast<double>(s.tokens)));
  row(out, "time",
      format_duration(s.total_s) +
          (s.earlier_s > 0 ? ", and " + format_duration(s.earlier_s) + " in the starts before" : ""));
  row(out, "tokens/s", format_count(s.tokens_per_s));
  if (s.mfu > 0) row(out, "MFU", number("%.1f%%", 100 * s.mfu));
  if (s.peak_memory_bytes > 0) row(out, "peak memory", format_bytes(s.peak_memory_bytes) + " (largest rank)");
  const struct {
    const char* name;
    double seconds;
  } shares[] = {{"compute", s.compute_s},
                {"communication", s.communication_s},
                {"pipeline bubble", s.bubble_s},
                {"optimizer", s.optimizer_s},
                {"data", s.data_s},
                {"evaluation", s.evaluation_s},
                {"checkpoint", s.checkpoint_s},
                {"other", s.other_s}};
  out += "\n  share of the time";
  for (const auto& share : shares) {
    char line[96];
    std::snprintf(line, sizeof line, "\n    %-18s %6.1f%%  %10.2f s", share.name,
                  s.total_s > 0 ? 100 * share.seconds / s.total_s : 0.0, share.seconds);
    out += line;
  }
  row(out, "effective time", number("%.1f%%", 100 * s.effective_time_ratio) + " (in steps that counted)");
  row(out, "loss", number("%.4f first, ", s.first_loss) + number("%.4f last", s.last_loss));
  if (std::isfinite(s.best_validation_loss) && s.best_validation_loss > 0)
    row(out, "best validation loss",
        number("%.4f", s.best_validation_loss) +
            (s.scores.empty() ? number(" (perplexity %.4g)", std::exp(s.best_validation_loss)) : ""));
  for (const auto& [name, value] : s.scores)
    if (name != "loss") row(out, ("validation " + name).c_str(), number("%.4f", value));
  return out;
}

std::string curve_svg(const Series& training, const Series& validation) {
  std::vector<Series> series;
  if (!training.x.empty()) {
    Series raw{.name = "training", .x = training.x, .y = training.y};
    if (raw.x.size() >= kMinPointsToSmooth) {
      const int window = static_cast<int>(std::clamp<size_t>(raw.x.size() / 25, 5, 1000));
      Series smooth{
          .name = text("training, mean of ", window), .x = raw.x, .y = moving_average(raw.y, window)};
      raw.faint = true;
      series = {std::move(raw), std::move(smooth)};
    } else {
      series = {std::move(raw)};
    }
  }
  if (!validation.x.empty())
    series.push_back({.name = "validation",
                      .x = validation.x,
                      .y = validation.y,
                      .markers = validation.x.size() <= kMaxPointsForMarkers});
  ChartOptions options;
  options.title = "Loss";
  options.x_label = "step";
  options.y_label = "cross-entropy, nats a token";
  return line_chart_svg(series, options);
}

}  // namespace trireme
