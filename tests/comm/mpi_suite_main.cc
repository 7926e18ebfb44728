// The suite under mpirun: every case through shared memory, and again through MPI alone.
#include <gtest/gtest.h>

#include <iostream>

#include "comm/mpi.h"
#include "comm/watchdog.h"
#include "suite.h"

namespace trireme {
namespace {

Communicator* shared_world = nullptr;
Communicator* mpi_world = nullptr;

class MpiRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, bool>> {};

TEST_P(MpiRanks, Case) {
  const auto& [test, share_memory] = GetParam();
  Communicator& world = share_memory ? *shared_world : *mpi_world;
  if (world.rank() == 0) std::cout << test.name << (share_memory ? " shared\n" : " mpi\n") << std::flush;
  test.run(world);
  // Who fails, fails for all: else ranks would part ways, and the next case fail for no reason of its own.
  world.agree(HasFailure() ? "its checks failed" : "");
}

INSTANTIATE_TEST_SUITE_P(Suite, MpiRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()), ::testing::Bool()),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name,
                                       std::get<1>(info.param) ? "ThroughSharedMemory" : "ThroughMpi");
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
  const Tensor first = input(shared_world->rank());
  shared_world->all_reduce(first);
  for (int run = 0; run < 3; ++run) {
    const Tensor a = input(shared_world->rank()), b = input(shared_world->rank());
    shared_world->all_reduce(a);
    mpi_world->all_reduce(b);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(a.data<float>()[i], first.data<float>()[i]) << "run " << run << " element " << i;
      ASSERT_EQ(b.data<float>()[i], first.data<float>()[i]) << "run " << run << " element " << i;
    }
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  using namespace trireme;
  ::testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  try {
    const auto with_memory = make_mpi_world(), without = make_mpi_world({.share_memory = false});
    shared_world = with_memory.get();
    mpi_world = without.get();
    Watchdog first({.timeout_s = 60}, *with_memory), second({.timeout_s = 60}, *without);
    if (with_memory->rank() != 0)  // rank 0 tells of progress; failures of the others go to stderr with their message
      delete ::testing::UnitTest::GetInstance()->listeners().Release(
          ::testing::UnitTest::GetInstance()->listeners().default_result_printer());
    class Failures : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed())
          std::cerr << text("rank ", shared_world->rank(), ": ", result.file_name() ? result.file_name() : "", ":",
                            result.line_number(), ": ", result.message(), "\n");
      }
    };
    ::testing::UnitTest::GetInstance()->listeners().Append(new Failures);
    return RUN_ALL_TESTS();
  } catch (const std::exception& e) {
    abort_job(1, e.what());
  }
}
