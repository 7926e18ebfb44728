// What the tests of metrics report.
#pragma once

#include <string>

#include "trainer/metrics.h"

namespace trireme::testing {

inline StepMetrics step_at(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.loss = 5.25 - 0.0625 * static_cast<double>(step);
  m.learning_rate = 3e-4;
  m.grad_norm = 1.25;
  m.tokens = step * 2048;
  m.tokens_per_s = 12345;
  m.mfu = 0.4125;
  m.step_s = 0.5;
  m.memory_bytes = size_t{3} << 29;
  m.eta_s = 723.4;
  return m;
}

// Files of metrics as asked for.
inline LogSection only(bool tensorboard, bool jsonl, ProgressStyle progress = ProgressStyle::kPlain) {
  LogSection options;
  options.tensorboard = tensorboard;
  options.jsonl = jsonl;
  options.progress = progress;
  return options;
}

inline size_t count(const std::string& haystack, const std::string& needle) {
  size_t n = 0;
  for (size_t at = haystack.find(needle); at != std::string::npos; at = haystack.find(needle, at + 1)) ++n;
  return n;
}

}  // namespace trireme::testing
