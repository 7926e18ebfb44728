#include "tasks/scores_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;

TEST(Statistics, PerplexityIsTheExponentialOfTheMeanLoss) {
  EXPECT_DOUBLE_EQ(perplexity(6 * std::log(50.0), 6), 50);
  EXPECT_EQ(perplexity(0, 3), 1);
  EXPECT_EQ(perplexity(1e6, 1), INFINITY);
  EXPECT_EQ(message_of<ShapeError>([] { perplexity(1, 0); }), "perplexity of 0 tokens");
  EXPECT_EQ(message_of<ShapeError>([] { perplexity(std::nan(""), 3); }), "perplexity of a loss that is NaN");
}

TEST(Statistics, DeviationIsThatOfTheSample) {
  const std::vector<double> v = {2, 4, 4, 4, 5, 5, 7, 9};  // squares of deviations: 32
  const MeanDeviation m = mean_deviation(v);
  EXPECT_EQ(m.count, 8);
  EXPECT_DOUBLE_EQ(m.mean, 5);
  EXPECT_DOUBLE_EQ(m.deviation, std::sqrt(32.0 / 7));
  EXPECT_EQ(describe(m), "5.00 +- 2.14 (8 seeds)");
  EXPECT_EQ(describe(m, 100, 1), "500.0 +- 213.8 (8 seeds)");
}

TEST(Statistics, ASingleValueHasNoSpread) {
  const std::vector<double> one = {0.25};
  const MeanDeviation m = mean_deviation(one);
  EXPECT_EQ(m.mean, 0.25);
  EXPECT_TRUE(std::isnan(m.deviation));
  EXPECT_EQ(describe(m), "0.25 (1 seed)");
  EXPECT_EQ(message_of<ShapeError>([] { mean_deviation({}); }), "mean of no values");
  const std::vector<double> bad = {1, INFINITY};
  EXPECT_EQ(message_of<ShapeError>([&] { mean_deviation(bad); }), "mean: value 1 is inf; values must be finite");
}

}  // namespace
}  // namespace trireme
