#include "trainer/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace trireme {
namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(100);
constexpr int kBarColumns = 20;
constexpr const char* kClearLine = "\r\033[K";

template <class... Args>
std::string formatted(const char* format, Args... args) {
  char out[128];
  std::snprintf(out, sizeof out, format, args...);
  return out;
}

int columns_of_stdout() {
  winsize size{};
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// What follows the step's number, in a bar as in a line.
std::string figures(const StepMetrics& m) {
  std::string out = formatted("loss %.4f  lr %.2e  grad %.3g  ", m.loss, m.learning_rate, m.grad_norm) +
                    format_count(m.tokens_per_s) + " tok/s";
  if (m.mfu > 0) out += formatted("  MFU %.1f%%", 100 * m.mfu);
  out += "  " + format_bytes(m.memory_bytes) + "  ETA " + format_duration(m.eta_s);
  if (m.skipped) out += "  skipped";
  return out;
}

}  // namespace

std::string format_count(double value) {
  const double size = std::abs(value);
  if (!(size >= 999.5)) return formatted("%.0f", value);
  const char* unit = "k";
  double scale = 1e3;
  for (const char* next : {"M", "G", "T"}) {
    if (size < 999.5 * scale) break;
    scale *= 1e3;
    unit = next;
  }
  const double shown = value / scale;
  const double magnitude = std::abs(shown);
  return formatted(magnitude < 9.995 ? "%.2f%s" : magnitude < 99.95 ? "%.1f%s" : "%.0f%s", shown, unit);
}

std::string format_bytes(size_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1023.5 ? formatted("%.0f MiB", mib) : formatted("%.2f GiB", mib / 1024);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e12) return "?";
  const long long s = std::llround(seconds);
  return formatted("%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (c == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F: control characters too
      out += '?';
      ++i;
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
      out += '?';
    } else {
      out += text[i];
    }
  }
  return out;
}

ProgressStyle resolve_style(ProgressStyle style) {
  if (style != ProgressStyle::kAuto) return style;
  const char* term = std::getenv("TERM");
  const bool draws = term && *term && std::string_view(term) != "dumb";
  return draws && columns_of_stdout() > 0 ? ProgressStyle::kBar : ProgressStyle::kPlain;
}

int terminal_width() {
  const int columns = columns_of_stdout();
  return columns > 0 ? columns : 80;
}

std::string step_line(const StepMetrics& m, int64_t total_steps) {
  return text("step ", m.step, '/', total_steps, "  ", figures(m));
}

std::string evaluation_line(const EvaluationMetrics& m) {
  std::string line = text("step ", m.step, "  validation loss ", formatted("%.4f", m.loss));
  if (m.scores.empty()) line += formatted("  perplexity %.4g", std::exp(m.loss));
  for (const auto& [name, score] : m.scores) line += "  " + name + formatted(" %.4f", score);
  return line + (m.best ? "  best so far" : "");
}

Progress::Progress(std::ostream& out, ProgressStyle style, int64_t total_steps, int width)
    : out_(out), style_(style), total_steps_(total_steps), width_(std::max(width, 2)) {
  TRIREME_ASSERT(style != ProgressStyle::kAuto);
}

Progress::~Progress() { finish(); }

void Progress::step(const StepMetrics& m, bool log) {
  if (style_ == ProgressStyle::kPlain && log) line(step_line(m, total_steps_));
  if (style_ != ProgressStyle::kBar) return;
  const auto now = std::chrono::steady_clock::now();
  if (!log && !bar_.empty() && now - drawn_ < kRedrawEvery) return;
  drawn_ = now;
  const double share =
      total_steps_ > 0 ? std::clamp(static_cast<double>(m.step) / static_cast<double>(total_steps_), 0.0, 1.0)
                       : 0;
  const int filled = static_cast<int>(share * kBarColumns);
  bar_ = '[' + std::string(filled, '=') + std::string(kBarColumns - filled, ' ') +
         text("] ", m.step, '/', total_steps_, "  ", figures(m));
  // The last column stays free: some terminals wrap once it is written, and the line could not be taken back.
  bar_.resize(std::min(bar_.size(), static_cast<size_t>(width_ - 1)));
  draw();
}

void Progress::evaluation(const EvaluationMetrics& m) {
  if (style_ != ProgressStyle::kNone) line(evaluation_line(m));
}

void Progress::line(std::string_view text) {
  if (!bar_.empty()) out_ << kClearLine;
  out_ << printable(text) << '\n';
  if (bar_.empty()) {
    out_.flush();
  } else {
    draw();
  }
}

void Progress::draw() { out_ << kClearLine << bar_ << std::flush; }

void Progress::finish() {
  if (bar_.empty()) return;
  out_ << '\n' << std::flush;
  bar_.clear();
}

}  // namespace trireme
