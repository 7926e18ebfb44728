#include "tasks/scores_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/error.h"

namespace trireme {

double perplexity(double total_loss, int64_t tokens) {
  check(tokens > 0, "perplexity of ", tokens, " tokens");
  check(!std::isnan(total_loss), "perplexity of a loss that is NaN");
  return std::exp(total_loss / static_cast<double>(tokens));
}

MeanDeviation mean_deviation(std::span<const double> values) {
  check(!values.empty(), "mean of no values");
  MeanDeviation m;
  m.count = static_cast<int64_t>(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    check(std::isfinite(values[i]), "mean: value ", i, " is ", values[i], "; values must be finite");
    m.mean += values[i] / static_cast<double>(m.count);
  }
  double squares = 0;
  for (const double v : values) squares += (v - m.mean) * (v - m.mean);
  m.deviation = m.count == 1 ? std::numeric_limits<double>::quiet_NaN()
                             : std::sqrt(squares / static_cast<double>(m.count - 1));
  return m;
}

std::string describe(const MeanDeviation& m, double scale, int decimals) {
  decimals = std::clamp(decimals, 0, 15);
  char buffer[800];
  if (m.count == 1)
    std::snprintf(buffer, sizeof buffer, "%.*f (1 seed)", decimals, scale * m.mean);
  else
    std::snprintf(buffer, sizeof buffer, "%.*f +- %.*f (%lld seeds)", decimals, scale * m.mean, decimals,
                  std::abs(scale) * m.deviation, static_cast<long long>(m.count));
  return buffer;
}

}  // namespace trireme
