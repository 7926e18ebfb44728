#include "trainer/metrics_log.h"

#include <chrono>
#include <cmath>
#include <optional>

#include "base/json.h"
#include "trainer/metrics.h"

namespace trireme {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;

boost::json::value finite_or_null(double value) {
  return std::isfinite(value) ? boost::json::value(value) : boost::json::value(nullptr);
}

// Nothing for what is no line of metrics.
std::optional<boost::json::object> parse_line(std::string_view line, const std::string& where) {
  try {
    boost::json::value value = parse_json(line, where);
    const JsonObject object(value, where);
    object.string("type");
    object.integer("step", 0);
    return std::move(value.as_object());
  } catch (const FileError&) {
    return std::nullopt;
  }
}

}  // namespace

boost::json::object to_json_line(const StepMetrics& m) {
  return {{"type", "step"},
          {"step", m.step},
          {"loss", finite_or_null(m.loss)},
          {"learning_rate", finite_or_null(m.learning_rate)},
          {"grad_norm", finite_or_null(m.grad_norm)},
          {"tokens", m.tokens},
          {"tokens_per_s", finite_or_null(m.tokens_per_s)},
          {"mfu", m.mfu > 0 ? finite_or_null(m.mfu) : boost::json::value(nullptr)},
          {"step_s", finite_or_null(m.step_s)},
          {"memory_bytes", static_cast<uint64_t>(m.memory_bytes)},
          {"eta_s", finite_or_null(m.eta_s)},
          {"skipped", m.skipped}};
}

boost::json::object to_json_line(const EvaluationMetrics& m) {
  boost::json::object line = {{"type", "evaluation"}, {"step", m.step}, {"loss", finite_or_null(m.loss)}};
  if (m.scores.empty()) line["perplexity"] = finite_or_null(std::exp(m.loss));
  for (const auto& [name, score] : m.scores) line[name] = finite_or_null(score);
  line["best"] = m.best;
  return line;
}

boost::json::object to_json_line(const RunSummary& s) {
  return {{"type", "summary"},
          {"step", s.steps},
          {"tokens", s.tokens},
          {"tokens_per_s", finite_or_null(s.tokens_per_s)},
          {"mfu", s.mfu > 0 ? finite_or_null(s.mfu) : boost::json::value(nullptr)},
          {"total_s", finite_or_null(s.total_s)},
          {"earlier_s", finite_or_null(s.earlier_s)},
          {"compute_s", finite_or_null(s.compute_s)},
          {"communication_s", finite_or_null(s.communication_s)},
          {"bubble_s", finite_or_null(s.bubble_s)},
          {"optimizer_s", finite_or_null(s.optimizer_s)},
          {"data_s", finite_or_null(s.data_s)},
          {"evaluation_s", finite_or_null(s.evaluation_s)},
          {"checkpoint_s", finite_or_null(s.checkpoint_s)},
          {"other_s", finite_or_null(s.other_s)},
          {"effective_time_ratio", finite_or_null(s.effective_time_ratio)},
          {"peak_memory_bytes", static_cast<uint64_t>(s.peak_memory_bytes)},
          {"first_loss", finite_or_null(s.first_loss)},
          {"last_loss", finite_or_null(s.last_loss)},
          {"best_validation_loss", finite_or_null(s.best_validation_loss)}};
}

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t resume_step) {
  if (std::filesystem::exists(path)) {
    const std::string contents = read_text_file(path, kMaxFileBytes);
    std::string keep;
    for (size_t begin = 0; resume_step > 0 && begin < contents.size();) {
      size_t end = contents.find('\n', begin);
      const bool whole = end != std::string::npos;
      if (!whole) end = contents.size();
      const std::string_view line = std::string_view(contents).substr(begin, end - begin);
      begin = end + 1;
      // A line without its end may lack digits of its last number: it is no line, though it should parse.
      std::optional<boost::json::object> object;
      if (whole) object = parse_line(line, path.string());
      if (!object) {
        ++num_damaged_;
        continue;
      }
      if (object->at("step").to_number<int64_t>() > resume_step) continue;
      keep.append(line).push_back('\n');
      kept_.push_back(std::move(*object));
    }
    if (keep != contents) write_file_atomically(path, keep);
  }
  file_ = std::make_unique<AppendFile>(path, AppendFile::Open::kExisting);
}

void MetricsLog::write(boost::json::object line) {
  line["time"] = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  file_->append(to_json(line) + '\n');
}

}  // namespace trireme
