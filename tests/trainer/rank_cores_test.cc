#include "trainer/rank_cores.h"

#include <gtest/gtest.h>

#include "comm/threads.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

// Rank 0 of two on a host of eight cores.
RankCores bound(int cores) {
  RankCores r;
  for (int c = 0; c < cores; ++c) r.allowed.push_back(c);
  r.share = {r.allowed, true, ""};
  r.ranks_on_host = 2;
  r.host_cores = 8;
  return r;
}
RankCores shared() {
  RankCores r = bound(8);
  r.share = {{0, 1, 2, 3}, false, ""};
  return r;
}

TEST(Pinning, AutoTakesOnlyCoresThatALauncherGaveTheRankAlone) {
  EXPECT_EQ(why_not_pinned(bound(4), PinMode::kAuto, 4), "");
  EXPECT_EQ(why_not_pinned(shared(), PinMode::kAuto, 4), "run.pin=auto, and ranks share their cores");
  EXPECT_EQ(why_not_pinned(bound(8), PinMode::kAuto, 4), "run.pin=auto, and the rank may use all cores of the host");
}

TEST(Pinning, OnTakesPartsOfSharedCoresToo) {
  EXPECT_EQ(why_not_pinned(bound(8), PinMode::kOn, 8), "");
  EXPECT_EQ(why_not_pinned(shared(), PinMode::kOn, 4), "");
  EXPECT_EQ(why_not_pinned(shared(), PinMode::kOff, 4), "run.pin=off");
}

TEST(Pinning, NeverPutsMoreThreadsThanCores) {
  EXPECT_EQ(why_not_pinned(shared(), PinMode::kOn, 5), "5 threads have 4 cores");
  EXPECT_EQ(why_not_pinned(bound(1), PinMode::kOn, 2), "2 threads have 1 core");
  RankCores crowded = shared();
  crowded.share = {{}, false, "9 ranks share 8 cores"};
  EXPECT_EQ(why_not_pinned(crowded, PinMode::kOn, 1), "9 ranks share 8 cores");
}

TEST(RankCores, RanksOfAHostDivideWhatTheyShare) {
  const Cores mine = allowed_cores();
  const int n = static_cast<int>(mine.size());
  ASSERT_GE(n, 1);
  std::vector<RankCores> found(static_cast<size_t>(n));
  run_ranks(n, [&](Communicator& world) { found[static_cast<size_t>(world.rank())] = rank_cores(world); });
  Cores together;
  for (const RankCores& r : found) {
    EXPECT_EQ(r.allowed, mine);
    EXPECT_EQ(r.ranks_on_host, n);
    EXPECT_EQ(r.share.cores.size(), 1u);
    EXPECT_EQ(default_threads(r), 1);
    together.insert(together.end(), r.share.cores.begin(), r.share.cores.end());
  }
  EXPECT_EQ(list_of_cores(together), list_of_cores(mine));
  run_ranks(n + 1, [&](Communicator& world) {
    const RankCores r = rank_cores(world);
    EXPECT_TRUE(r.share.cores.empty());
    EXPECT_EQ(default_threads(r), 1);
    EXPECT_NE(why_not_pinned(r, PinMode::kOn, 1).find("ranks share"), std::string::npos);
  });
}

}  // namespace
}  // namespace trireme
