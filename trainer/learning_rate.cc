#include "trainer/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trireme {

double LearningRateSchedule::at(int64_t step) const {
  if (step <= warmup_steps) return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (kind == LearningRateKind::kConstant) return peak;
  int64_t begin = warmup_steps, length = decay_steps ? decay_steps : total_steps - warmup_steps;
  if (kind == LearningRateKind::kWarmupStableDecay) {
    length = decay_steps ? decay_steps : std::max<int64_t>(1, total_steps / 10);
    begin = std::max(warmup_steps, total_steps - length);
  }
  const double progress = std::clamp(
      static_cast<double>(step - begin) / static_cast<double>(std::max<int64_t>(1, length)), 0.0, 1.0);
  const double left =
      kind == LearningRateKind::kCosine ? 0.5 * (1 + std::cos(std::numbers::pi * progress)) : 1 - progress;
  return minimum + (peak - minimum) * left;
}

}  // namespace trireme
