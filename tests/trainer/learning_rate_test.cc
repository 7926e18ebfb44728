#include "trainer/learning_rate.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(LearningRate, WarmsUpLinearlyToThePeak) {
  const LearningRateSchedule s{LearningRateKind::kConstant, 0.4, 0, 4, 100, 0};
  EXPECT_DOUBLE_EQ(s.at(1), 0.1);
  EXPECT_DOUBLE_EQ(s.at(3), 0.3);
  EXPECT_DOUBLE_EQ(s.at(4), 0.4);
  EXPECT_DOUBLE_EQ(s.at(100), 0.4);
}

TEST(LearningRate, LinearEndsAtTheMinimumAndStaysThere) {
  const LearningRateSchedule s{LearningRateKind::kLinear, 1.0, 0.2, 10, 110, 0};
  EXPECT_NEAR(s.at(60), 0.6, 1e-12);
  EXPECT_NEAR(s.at(110), 0.2, 1e-12);
  EXPECT_NEAR(s.at(500), 0.2, 1e-12);
}

TEST(LearningRate, CosineIsHalfWayInTheMiddle) {
  const LearningRateSchedule s{LearningRateKind::kCosine, 1.0, 0.0, 0, 100, 0};
  EXPECT_NEAR(s.at(50), 0.5, 1e-12);
  EXPECT_NEAR(s.at(25), 0.8535533905932737, 1e-12);
  EXPECT_NEAR(s.at(100), 0.0, 1e-12);
}

TEST(LearningRate, DecayMayEndBeforeTheRun) {
  const LearningRateSchedule s{LearningRateKind::kLinear, 1.0, 0.0, 0, 100, 40};
  EXPECT_NEAR(s.at(20), 0.5, 1e-12);
  EXPECT_NEAR(s.at(41), 0.0, 1e-12);
}

TEST(LearningRate, WarmupStableDecayFallsOnlyAtTheEnd) {
  const LearningRateSchedule s{LearningRateKind::kWarmupStableDecay, 1.0, 0.0, 10, 100, 20};
  EXPECT_DOUBLE_EQ(s.at(11), 1.0);
  EXPECT_DOUBLE_EQ(s.at(80), 1.0);
  EXPECT_NEAR(s.at(90), 0.5, 1e-12);
  EXPECT_NEAR(s.at(100), 0.0, 1e-12);
}

}  // namespace
}  // namespace trireme
