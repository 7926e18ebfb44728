#include "tasks/scores_correlation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;
using Values = std::vector<double>;

TEST(Correlation, IsThatOfTheFormula) {
  EXPECT_DOUBLE_EQ(pearson_correlation(Values{1, 2, 3}, Values{10, 20, 30}), 1);
  EXPECT_DOUBLE_EQ(pearson_correlation(Values{1, 2, 3}, Values{3, 2, 1}), -1);
  // Deviations (-1.5 -0.5 0.5 1.5) and (-1 1 -1 1): 2 / sqrt(5 * 4).
  EXPECT_NEAR(pearson_correlation(Values{1, 2, 3, 4}, Values{0, 2, 0, 2}), 2 / std::sqrt(20.0), 1e-15);
  EXPECT_DOUBLE_EQ(spearman_correlation(Values{1, 2, 3, 4}, Values{-5, 0, 1e300, 1e301}), 1);
}

TEST(Correlation, EqualValuesShareTheMeanOfTheirRanks) {
  EXPECT_EQ(average_ranks(Values{5, 1, 5, 5, 0}), (Values{4, 2, 4, 4, 1}));
  EXPECT_EQ(average_ranks(Values{}), Values{});
  // Ranks (1.5 1.5 3 4) and (1 3 3 3): deviations (-1 -1 .5 1.5), (-1.5 .5 .5 .5).
  EXPECT_NEAR(spearman_correlation(Values{2, 2, 7, 9}, Values{0, 4, 4, 4}), 2.0 / std::sqrt(4.5 * 3), 1e-15);
}

TEST(Correlation, WithAConstantThereIsNone) {
  EXPECT_TRUE(std::isnan(pearson_correlation(Values{1, 2}, Values{3, 3})));
  EXPECT_TRUE(std::isnan(spearman_correlation(Values{0, 0, 0}, Values{1, 2, 3})));
}

TEST(Correlation, RefusesWhatItCannotCompare) {
  EXPECT_EQ(message_of<ShapeError>([] { pearson_correlation(Values{1, 2}, Values{1}); }), "correlation of 2 values with 1");
  EXPECT_EQ(message_of<ShapeError>([] { spearman_correlation(Values{1}, Values{1}); }),
            "correlation of 1 pair; it takes at least 2");
  EXPECT_EQ(message_of<ShapeError>([] { spearman_correlation(Values{1, 2}, Values{1, std::nan("")}); }),
            "correlation: pair 1 is (2, nan); values must be finite");
  EXPECT_EQ(message_of<ShapeError>([] { pearson_correlation(Values{1, INFINITY, 3}, Values{1, 2, 3}); }),
            "correlation: pair 1 is (inf, 2); values must be finite");
}

}  // namespace
}  // namespace trireme
