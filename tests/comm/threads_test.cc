#include "comm/threads.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <latch>
#include <mutex>

#include "comm/watchdog.h"
#include "suite.h"

namespace trireme {
namespace {

using testing::message_of;

class ThreadRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, int, bool>> {};

TEST_P(ThreadRanks, Case) {
  const auto& [test, size, in_place] = GetParam();
  run_ranks(size, test.run, {.timeout_s = 60, .in_place = in_place});
}

INSTANTIATE_TEST_SUITE_P(Suite, ThreadRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()),
                                            ::testing::Values(1, 2, 3, 4, 8), ::testing::Bool()),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name, "On", std::get<1>(info.param),
                                       std::get<2>(info.param) ? "InPlace" : "ThroughWindows");
                         });

class SelfRank : public ::testing::TestWithParam<testing::CommCase> {};
TEST_P(SelfRank, Case) {
  const auto self = make_self_communicator("world");
  GetParam().run(*self);
}
INSTANTIATE_TEST_SUITE_P(Suite, SelfRank, ::testing::ValuesIn(testing::comm_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ThreadRanksJob, EachRankHasOneOpenMpThread) {
  run_ranks(3, [](Communicator&) { EXPECT_EQ(omp_get_max_threads(), 1); });
}

TEST(ThreadRanksJob, AFailingRankEndsTheOthersAndItsErrorIsRethrown) {
  std::mutex mutex;
  std::vector<std::string> messages;
  auto job = [&] {
    run_ranks(4, [&](Communicator& world) {
      const auto pair = world.split(world.rank() / 2, 0, "pair");
      if (world.rank() == 3) throw FileError("weights.bin: damaged");
      try {
        // Ranks 0 and 1 wait in other communicators than rank 2, whose partner failed.
        for (;;) (world.rank() == 2 ? *pair : world).all_reduce(zeros({8}, DType::kF32));
      } catch (const CommError& e) {
        std::lock_guard lock(mutex);
        messages.push_back(e.what());
        throw;
      }
    });
  };
  EXPECT_EQ(message_of<FileError>(job), "weights.bin: damaged");
  ASSERT_EQ(messages.size(), 3u);
  for (const std::string& m : messages) {
    EXPECT_NE(m.find("all_reduce f32[8]: rank 3 failed: weights.bin: damaged"), std::string::npos) << m;
    EXPECT_NE(m.find("comm["), std::string::npos) << m;
  }
}

TEST(ThreadRanksJob, AFailureEndsReceivesAndAsynchronousCallsToo) {
  std::atomic<int> num_ended = 0;
  auto job = [&] {
    run_ranks(3, [&](Communicator& world) {
      if (world.rank() == 2) throw FileError("gone");
      const Tensor t = zeros({8}, DType::kF32);
      Work work = world.rank() == 0 ? world.all_reduce_async(t) : world.recv(t, 0, 5);
      message_of<CommError>([&] { work.wait(); });
      ++num_ended;
    });
  };
  EXPECT_EQ(message_of<FileError>(job), "gone");
  EXPECT_EQ(num_ended, 2);
}

// The rank unwinds through Works and communicators that others will never complete.
TEST(ThreadRanksJob, AFailingRankDoesNotWaitForItsOwnCallsUnderWay) {
  auto job = [] {
    run_ranks(2, [](Communicator& world) {
      const auto other = world.split(0, 0, "other");
      const Tensor t = zeros({8}, DType::kF32), u = zeros({8}, DType::kF32);
      if (world.rank() == 1) {
        Work sum = other->all_reduce_async(t);
        Work message = world.send(u, 0, 1);
        throw FileError("boom");
      }
      world.barrier();
    });
  };
  EXPECT_EQ(message_of<FileError>(job), "boom");
}

TEST(ThreadRanksJob, ARankThatReturnedIsNamedByThoseWhoWaitForIt) {
  const std::string collective = message_of<CommError>([] {
    run_ranks(3, [](Communicator& world) {
      if (world.rank() != 1) world.all_reduce(zeros({3}, DType::kI64), ReduceOp::kMax);
    });
  });
  EXPECT_NE(collective.find("all_reduce (max) i64[3]: rank 1 has returned without entering it"), std::string::npos)
      << collective;
  const std::string message = message_of<CommError>([] {
    run_ranks(2, [](Communicator& world) {
      if (world.rank() == 0) world.recv(zeros({3}, DType::kI64), 1, 9).wait();
    });
  });
  EXPECT_NE(message.find("recv i64[3] from rank 1, tag 9: rank 1 has returned without its side of it"),
            std::string::npos)
      << message;
}

// Rank 1 stays away until the others have given up.
void expect_timeout(const ThreadRanksOptions& options, double watchdog_s, std::string* message) {
  std::latch gave_up(2);
  *message = message_of<CommError>([&] {
    run_ranks(
        3,
        [&](Communicator& world) {
          Watchdog watchdog({.timeout_s = watchdog_s}, world);
          world.barrier();
          watchdog.set_step(120);
          if (world.rank() == 1) {
            watchdog.set_activity("forward of micro-batch 3");
            gave_up.wait();
            world.barrier();  // too late
            ADD_FAILURE() << "the barrier of a failed job returned";
          }
          try {
            world.all_reduce(zeros({2, 5}, DType::kBF16));
          } catch (...) {
            gave_up.count_down();
            throw;
          }
        },
        options);
  });
}

TEST(ThreadRanksJob, ATimeoutNamesTheRankThatNeverEntered) {
  std::string message;
  expect_timeout({.timeout_s = 0.1}, 0, &message);
  for (const char* part : {"comm[world ", "/3, host ", "all_reduce bf16[2,5] at step 120 timed out after ",
                           " ms; rank 1 never entered it (last: forward of micro-batch 3", "see its log"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(WatchdogTest, EndsRanksThatAreThreadsWithAnError) {
  ::testing::internal::CaptureStderr();
  std::string message;
  expect_timeout({}, 0.1, &message);
  const std::string printed = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(message.find("rank 1 never entered it (last: forward of micro-batch 3"), std::string::npos) << message;
  EXPECT_NE(printed.find("all_reduce bf16[2,5] at step 120 timed out after"), std::string::npos) << printed;
}

TEST(WatchdogTest, RefusesNegativeTimes) {
  const auto self = make_self_communicator();
  EXPECT_THROW(Watchdog({.timeout_s = -1}, *self), ConfigError);
}

TEST(ThreadRanksJob, RefusesNoRanks) { EXPECT_THROW(run_ranks(0, [](Communicator&) {}), CommError); }

}  // namespace
}  // namespace trireme
