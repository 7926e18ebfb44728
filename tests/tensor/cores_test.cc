#include "tensor/cores.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <fstream>
#include <thread>

#include "base/error.h"
#include "tests/tensor/threads.h"

namespace trireme {
namespace {

using testing::ThreadsOf;

std::vector<Cores> ranks(int n, const Cores& mask) { return std::vector<Cores>(static_cast<size_t>(n), mask); }
Cores from_to(int first, int last) {
  Cores cores;
  for (int c = first; c <= last; ++c) cores.push_back(c);
  return cores;
}
// Cores c and c + `distance` are siblings, as Linux counts them on most hosts.
std::map<int, int> siblings_apart(int cores, int distance) {
  std::map<int, int> physical;
  for (int c = 0; c < cores; ++c) physical[c] = c % distance;
  return physical;
}

TEST(CoreLists, AreReadAndWritten) {
  EXPECT_EQ(cores_of_list("0-3,8,10-11\n"), (Cores{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(cores_of_list("7,2,2-3"), (Cores{2, 3, 7}));
  EXPECT_EQ(list_of_cores({8, 3, 1, 0, 2, 10, 11}), "0-3,8,10-11");
  EXPECT_EQ(list_of_cores({}), "");
  for (const char* bad : {"", "\n", "x", "1,", ",1", "1-", "-1", "3-1", "1;2", "0-99999999999", "0-2000000", "1 2"})
    EXPECT_EQ(cores_of_list(bad), Cores{}) << bad;
}

TEST(CoreShare, RanksThatShareAllCoresHaveEqualPartsInTheirOrder) {
  const std::vector<Cores> all = ranks(3, from_to(4, 10));  // seven cores
  EXPECT_EQ(core_share(all, 0, {}).cores, (Cores{4, 5}));
  EXPECT_EQ(core_share(all, 1, {}).cores, (Cores{6, 7}));
  EXPECT_EQ(core_share(all, 2, {}).cores, (Cores{8, 9, 10}));
  EXPECT_FALSE(core_share(all, 1, {}).own);
}

TEST(CoreShare, ABoundRankHasAllOfItsOwnCores) {
  const std::vector<Cores> bound = {{0, 1}, {2, 3}, {4, 5}};
  EXPECT_EQ(core_share(bound, 2, {}).cores, (Cores{4, 5}));
  EXPECT_TRUE(core_share(bound, 2, {}).own);
  // By socket: two ranks each.
  const std::vector<Cores> by_socket = {{0, 1, 2, 3}, {4, 5, 6, 7}, {0, 1, 2, 3}, {4, 5, 6, 7}};
  EXPECT_EQ(core_share(by_socket, 1, {}).cores, (Cores{4, 5}));
  EXPECT_EQ(core_share(by_socket, 2, {}).cores, (Cores{2, 3}));
  EXPECT_FALSE(core_share(by_socket, 2, {}).own);
}

TEST(CoreShare, SiblingsStayTogetherAndComeLast) {
  const std::map<int, int> physical = siblings_apart(8, 4);
  EXPECT_EQ(core_share(ranks(1, from_to(0, 7)), 0, physical).cores, (Cores{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(core_share(ranks(2, from_to(0, 7)), 0, physical).cores, (Cores{0, 1, 4, 5}));
  EXPECT_EQ(core_share(ranks(2, from_to(0, 7)), 1, physical).cores, (Cores{2, 3, 6, 7}));
  // More ranks than physical cores: logical ones.
  EXPECT_EQ(core_share(ranks(8, from_to(0, 7)), 5, physical).cores, (Cores{5}));
  // Neighbours as siblings.
  const std::map<int, int> pairs = {{0, 0}, {1, 0}, {2, 2}, {3, 2}};
  EXPECT_EQ(core_share(ranks(1, from_to(0, 3)), 0, pairs).cores, (Cores{0, 2, 1, 3}));
  // A mask that holds a second sibling alone.
  EXPECT_EQ(core_share(ranks(1, {1, 2}), 0, pairs).cores, (Cores{1, 2}));
}

TEST(CoreShare, SaysWhyThereIsNone) {
  EXPECT_EQ(core_share(ranks(3, {0, 1}), 1, {}).problem, "3 ranks share 2 cores");
  EXPECT_EQ(core_share(ranks(2, {5}), 0, {}).problem, "2 ranks share 1 core");
  EXPECT_EQ(core_share({{0, 1, 2}, {2, 3}}, 1, {}).problem,
            "it may run on cores 2-3, another rank on 0-2: they overlap in part");
  EXPECT_EQ(core_share({{}, {}}, 0, {}).problem, "the system does not say on which cores it may run");
  EXPECT_TRUE(core_share(ranks(3, {0, 1}), 1, {}).cores.empty());
}

TEST(PhysicalCores, AreReadFromTheSystemsFolder) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / text("cpus-", ::getpid());
  const auto write = [&](int core, const std::string& line) {
    std::filesystem::create_directories(folder / text("cpu", core) / "topology");
    std::ofstream(folder / text("cpu", core) / "topology" / "thread_siblings_list") << line << "\n";
  };
  write(0, "0,2");
  write(2, "0,2");
  write(1, "nonsense");
  write(3, "0-1");  // does not name itself
  EXPECT_EQ(physical_cores({0, 1, 2, 3, 9}, folder), (std::map<int, int>{{0, 0}, {1, 1}, {2, 0}, {3, 3}, {9, 9}}));
  std::filesystem::remove_all(folder);
}

std::vector<Cores> cores_of_threads(int threads) {
  std::vector<Cores> found(static_cast<size_t>(threads));
#pragma omp parallel num_threads(threads)
  found[static_cast<size_t>(omp_get_thread_num())] = allowed_cores();
  return found;
}

TEST(PinnedThreads, RunOnTheirCoresUntilTheEnd) {
  const Cores before = allowed_cores();
  if (before.size() < 2) GTEST_SKIP() << "one core alone";
  const Cores share = {before[1], before[0]}, sorted = {before[0], before[1]};
  const ThreadsOf two(2);
  {
    PinnedThreads pinned(share, 2);
    EXPECT_EQ(pinned.problem(), "");
    EXPECT_EQ(cores_of_threads(2), (std::vector<Cores>{sorted, {before[0]}}));
    Cores helper;
    std::thread([&] { helper = allowed_cores(); }).join();
    EXPECT_EQ(helper, sorted) << "a helper must not be left on the core of the thread that started it";
  }
  EXPECT_EQ(allowed_cores(), before);
  EXPECT_EQ(cores_of_threads(2), (std::vector<Cores>{before, before}));
}

TEST(PinnedThreads, AreRenewedAfterOpenMpStartedOthers) {
  const Cores before = allowed_cores();
  if (before.size() < 2) GTEST_SKIP() << "one core alone";
  const ThreadsOf three(3);
  // Three threads on "three" cores, so that a region of two ends one of them.
  const Cores share = {before[0], before[1], before[0]};
  PinnedThreads pinned(share, 3);
  cores_of_threads(2);
  const std::vector<Cores> after = cores_of_threads(3);
  EXPECT_TRUE(after[2] == Cores{before[0]} || after[2] == (Cores{before[0], before[1]})) << list_of_cores(after[2]);
  pinned.renew();
  EXPECT_EQ(cores_of_threads(3)[1], Cores{before[1]});
  EXPECT_EQ(cores_of_threads(3)[2], Cores{before[0]});
}

TEST(PinnedThreads, SayWhatTheSystemRefuses) {
  const Cores before = allowed_cores();
  {
    const PinnedThreads pinned({1 << 15}, 1);  // no such core
    EXPECT_EQ(pinned.problem(), "sched_setaffinity: Invalid argument");
  }
  EXPECT_EQ(allowed_cores(), before);
}

}  // namespace
}  // namespace trireme
