#include "parallel/layer_partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "tests/parallel/schedule_shapes.h"

namespace trireme {
namespace {

using testing::message_of;

std::vector<int> sizes(const std::vector<LayerRange>& ranges) {
  std::vector<int> result;
  int next = 0;
  for (const LayerRange& r : ranges) {
    EXPECT_EQ(r.begin, next);
    next = r.end;
    result.push_back(r.size());
  }
  return result;
}

TEST(LayerPartition, EvenAndUnevenModelsAreBalanced) {
  EXPECT_EQ(sizes(partition_layers(8, 4)), (std::vector{2, 2, 2, 2}));
  EXPECT_EQ(sizes(partition_layers(5, 2)), (std::vector{3, 2}));
  EXPECT_EQ(sizes(partition_layers(7, 3)),
            (std::vector{3, 2, 2}));  // not 3, 3, 1, which has the same maximum
  EXPECT_EQ(sizes(partition_layers(60, 8)), (std::vector{8, 8, 8, 8, 7, 7, 7, 7}));
  EXPECT_EQ(sizes(partition_layers(1, 1)), (std::vector{1}));
  EXPECT_EQ(sizes(partition_layers(3, 3)), (std::vector{1, 1, 1}));
}

TEST(LayerPartition, EmbeddingAndHeadTakeTheRoomOfLayers) {
  EXPECT_EQ(sizes(partition_layers(12, 4, LayerCosts{0, 2, {}})),
            (std::vector{4, 4, 3, 1}));  // costs 4, 4, 3, 3
  EXPECT_EQ(sizes(partition_layers(10, 4, LayerCosts{1, 1, {}})), (std::vector{2, 3, 3, 2}));
  EXPECT_EQ(sizes(partition_layers(8, 4, LayerCosts{1, 3, {}})), (std::vector{2, 3, 2, 1}));
  // A head that outweighs everything leaves its piece one layer, and the rest is still balanced.
  EXPECT_EQ(sizes(partition_layers(7, 4, LayerCosts{0, 100, {}})), (std::vector{2, 2, 2, 1}));
}

TEST(LayerPartition, IsTheBestOfAllCuts) {
  const std::vector<double> costs = {3, 1, 4, 1, 5, 9, 2.5, 6, 0.5, 3};
  const int layers = static_cast<int>(costs.size());
  for (int pieces = 1; pieces <= layers; ++pieces) {
    const double first = 1.5, last = 2.25;
    const auto score = [&](const std::vector<int>& sizes) {
      double maximum = 0, squares = 0;
      for (int piece = 0, at = 0; piece < pieces; ++piece) {
        double cost = (piece == 0 ? first : 0) + (piece == pieces - 1 ? last : 0);
        for (int i = 0; i < sizes[piece]; ++i) cost += costs[at++];
        maximum = std::max(maximum, cost);
        squares += cost * cost;
      }
      return std::pair(maximum, squares);
    };
    std::pair best{std::numeric_limits<double>::infinity(), 0.0};
    std::vector<int> cut;
    const std::function<void(int)> try_all = [&](int left) {
      if (static_cast<int>(cut.size()) == pieces - 1) {
        cut.push_back(left);
        best = std::min(best, score(cut));
        cut.pop_back();
        return;
      }
      for (int size = 1; left - size >= pieces - static_cast<int>(cut.size()) - 1; ++size) {
        cut.push_back(size);
        try_all(left - size);
        cut.pop_back();
      }
    };
    try_all(layers);
    const auto found = score(sizes(partition_layers(layers, pieces, LayerCosts{first, last, costs})));
    EXPECT_NEAR(found.first, best.first, 1e-9) << pieces << " pieces";
    EXPECT_NEAR(found.second, best.second, 1e-9) << pieces << " pieces";
  }
}

TEST(LayerPartition, TakesAnExplicitList) {
  EXPECT_EQ(partition_layers(5, 2, std::vector{2, 3}), (std::vector<LayerRange>{{0, 2}, {2, 5}}));
}

TEST(LayerPartition, RefusesWhatCannotBe) {
  const auto message = [](const std::function<void()>& f) { return message_of<ConfigError>(f); };
  EXPECT_EQ(message([] { partition_layers(4, 5); }),
            "parallel.pipeline cuts the model into 5 pieces (stages times chunks), but it has only 4 layers; "
            "use at "
            "most 4 pieces");
  EXPECT_EQ(message([] { partition_layers(4, 0); }),
            "parallel.pipeline cuts the model into 0 pieces; use 1 or more");
  EXPECT_NE(message([] { partition_layers(0, 1); }).find("model of 0 layers"), std::string::npos);
  EXPECT_NE(message([] { partition_layers(1 << 30, 2); }).find("between 1 and 1024"), std::string::npos);
  EXPECT_NE(message([] {
              partition_layers(4, 2, LayerCosts{-1, 0, {}});
            }).find("not negative"),
            std::string::npos);
  EXPECT_EQ(message([] {
              partition_layers(4, 2, LayerCosts{0, 0, {1, 2}});
            }),
            "2 layer costs for 4 layers; give one for each, or none");
  EXPECT_EQ(message([] {
              partition_layers(5, 2, std::vector{3, 3});
            }),
            "parallel.layers_per_stage sums to 6, but the model has 5 layers; make the counts sum to 5");
  EXPECT_EQ(message([] { partition_layers(5, 2, std::vector{5}); }),
            "parallel.layers_per_stage lists 1 counts for 2 pieces (stages times chunks); list one for each");
  EXPECT_EQ(message([] {
              partition_layers(5, 2, std::vector{5, 0});
            }),
            "parallel.layers_per_stage[1]=0; each piece needs at least 1 layer");
  EXPECT_NE(message([] {
              partition_layers(5, 2, std::vector{2147483647, 2147483647});
            }).find("sums to 4294967294"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
