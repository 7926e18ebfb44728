#include "base/nearest_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace trireme {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("setps", "steps"), 1);
  EXPECT_EQ(edit_distance("lerning_rate", "learning_rate"), 1);
}

TEST(NearestName, FindsTheNearestAndNothingFar) {
  const std::vector<std::string> names = {"steps", "learning_rate", "min_learning_rate", "eps", "lr"};
  EXPECT_EQ(nearest_name("lerning_rate", names), "learning_rate");
  EXPECT_EQ(nearest_name("step", names), "steps");
  EXPECT_EQ(nearest_name("ep", names), "eps");
  EXPECT_EQ(nearest_name("zz", names), "");
  EXPECT_EQ(nearest_name("quantization", names), "");
  EXPECT_EQ(nearest_name(std::string(1'000'000, 'a'), names), "");
}

}  // namespace
}  // namespace trireme
