// A language model's perplexity; mean and spread of a figure over seeds.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace trireme {

// exp(total_loss / tokens), of the sum of -log(probability), natural logarithm, over the predicted tokens; infinite where
// that is beyond a double. Throws ShapeError without tokens, or if total_loss is NaN.
double perplexity(double total_loss, int64_t tokens);

struct MeanDeviation {
  int64_t count = 0;
  double mean = 0;
  double deviation = 0;  // of the sample: divided by count - 1. NaN for a single value, which shows no spread
};

// Throws ShapeError without values, or naming the first that is not finite.
MeanDeviation mean_deviation(std::span<const double> values);

// "91.23 +- 0.45 (5 seeds)" of values times `scale`; without the middle part for a single one.
std::string describe(const MeanDeviation& m, double scale = 1, int decimals = 2);

}  // namespace trireme
