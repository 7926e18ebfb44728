// The suite under mpirun: every case on tensors in place, through windows of shared memory, and through MPI alone.
#include <gtest/gtest.h>

#include <iostream>

#include "comm/mpi.h"
#include "comm/watchdog.h"
#include "suite.h"

namespace trireme {
namespace {

enum Way { kInPlace, kThroughWindows, kThroughMpi, kNumWays };
constexpr const char* kNames[] = {"InPlace", "ThroughWindows", "ThroughMpi"};
Communicator* worlds[kNumWays] = {};

class MpiRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, Way>> {};

TEST_P(MpiRanks, Case) {
  const auto& [test, way] = GetParam();
  Communicator& world = *worlds[way];
  if (world.rank() == 0) std::cout << test.name << ' ' << kNames[way] << '\n' << std::flush;
  test.run(world);
  // Who fails, fails for all: else ranks would part ways, and the next case fail for no reason of its own.
  world.agree(HasFailure() ? "its checks failed" : "");
}

INSTANTIATE_TEST_SUITE_P(Suite, MpiRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()),
                                            ::testing::Values(kInPlace, kThroughWindows, kThroughMpi)),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name, kNames[std::get<1>(info.param)]);
                         });

// The sums of all backends are the same bits: shared memory, MPI, and the reference of the suite.
TEST(MpiBackends, GiveTheSameBitsInEveryRun) {
  constexpr int64_t n = 123457;
  auto input = [](int rank) {
    const Tensor t = empty({n}, DType::kF32);
    for (int64_t i = 0; i < n; ++i)
      t.data<float>()[i] = static_cast<float>((i * 7919 + rank * 104729) % 1000003) * 1e-3f - 400.0f;
    return t;
  };
  const int rank = worlds[0]->rank();
  const Tensor first = input(rank);
  worlds[0]->all_reduce(first);
  for (int run = 0; run < 3; ++run)
    for (int way = 0; way < kNumWays; ++way) {
      const Tensor again = input(rank);
      worlds[way]->all_reduce(again);
      for (int64_t i = 0; i < n; ++i)
        ASSERT_EQ(again.data<float>()[i], first.data<float>()[i]) << kNames[way] << ", run " << run << " element " << i;
    }
}

// A rank's tensor that others cannot reach makes all go through windows, whatever the others' tensors are.
TEST(MpiBackends, TensorsOutsideTheArenaAreReducedToo) {
  constexpr int64_t n = 100003;
  Communicator& world = *worlds[kInPlace];
  for (int outside = 0; outside < world.size(); ++outside) {
    auto memory = std::make_shared<std::vector<float>>(n);
    const Tensor t = world.rank() == outside
                         ? Tensor::from_memory(memory->data(), {n}, DType::kF32, Device::cpu(), memory)
                         : empty({n}, DType::kF32);
    for (int64_t i = 0; i < n; ++i) t.data<float>()[i] = static_cast<float>(i % 1000 + world.rank());
    world.all_reduce(t);
    const int ranks = world.size();
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(t.data<float>()[i], static_cast<float>(i % 1000 * ranks + ranks * (ranks - 1) / 2)) << i;
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  using namespace trireme;
  ::testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  try {
    const std::unique_ptr<Communicator> owners[] = {make_mpi_world(), make_mpi_world({.in_place = false}),
                                                    make_mpi_world({.share_memory = false})};
    std::vector<std::unique_ptr<Watchdog>> watchdogs;
    for (int way = 0; way < kNumWays; ++way) {
      worlds[way] = owners[way].get();
      watchdogs.push_back(std::make_unique<Watchdog>(WatchdogOptions{.timeout_s = 60}, *owners[way]));
    }
    if (worlds[0]->rank() != 0)  // rank 0 tells of progress; failures of the others go to stderr with their message
      delete ::testing::UnitTest::GetInstance()->listeners().Release(
          ::testing::UnitTest::GetInstance()->listeners().default_result_printer());
    class Failures : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed())
          std::cerr << text("rank ", worlds[0]->rank(), ": ", result.file_name() ? result.file_name() : "", ":",
                            result.line_number(), ": ", result.message(), "\n");
      }
    };
    ::testing::UnitTest::GetInstance()->listeners().Append(new Failures);
    return RUN_ALL_TESTS();
  } catch (const std::exception& e) {
    abort_job(1, e.what());
  }
}
