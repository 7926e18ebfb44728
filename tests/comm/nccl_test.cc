// Communicators by NCCL, on the emulation of it and of the devices: the suite of all backends, and what goes wrong.
#include <gtest/gtest.h>
#include <nccl.h>

#include <cstdlib>

#include "comm/threads.h"
#include "comm/watchdog.h"
#include "comm_values.h"
#include "suite.h"
#include "tensor/cuda/devices.h"

namespace trireme {
namespace {

using testing::expect_same_bits;
using testing::message_of;
using testing::reduced;
using testing::test_device;
using testing::there;
using testing::values;

// Each test has eight devices, and all is well at first.
class Emulated {
 public:
  Emulated() : before_(cuda_emulation::settings()) {
    cuda_emulation::settings().devices = 8;
    nccl_emulation::reset();
  }
  ~Emulated() {
    nccl_emulation::break_network(ncclSuccess, "");
    cuda_emulation::settings() = before_;
  }

 private:
  cuda_emulation::Settings before_;
};

std::string connect(Communicator& world) {
  cuda::select_device(world.rank());
  return world.connect_devices();
}

class NcclRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, int>> {
  Emulated emulated_;
};

TEST_P(NcclRanks, Case) {
  const auto& [test, size] = GetParam();
  run_ranks(size, [&run = test.run](Communicator& world) {
    EXPECT_EQ(connect(world), world.size() == 1 ? "one rank" : "NCCL 2.28.9 (emulated)");
    run(world);
  }, {.timeout_s = 60});
  const auto record = nccl_emulation::record();
  EXPECT_EQ(record.made, record.destroyed);
  EXPECT_EQ(record.aborted, 0);
}

INSTANTIATE_TEST_SUITE_P(Suite, NcclRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()), ::testing::Values(1, 2, 3, 4)),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name, "On", std::get<1>(info.param));
                         });

class NcclTest : public ::testing::Test {
  Emulated emulated_;
};

TEST_F(NcclTest, GroupsSplitOffUseItToo) {
  run_ranks(4, [](Communicator& world) {
    connect(world);
    const int before = nccl_emulation::record().collectives;
    const auto pair = world.split(world.rank() / 2, world.rank(), "tp");
    const Tensor t = there(values(DType::kI32, 100, 1, world.rank() % 2));
    pair->all_reduce(t);
    expect_same_bits(t, reduced(DType::kI32, 100, 1, 2, ReduceOp::kSum), "all_reduce");
    world.barrier();
    EXPECT_EQ(nccl_emulation::record().collectives - before, 4);
  });
}

TEST_F(NcclTest, RanksThatShareADeviceGoThroughHostMemory) {
  run_ranks(2, [](Communicator& world) {
    cuda::select_device(5);
    const std::string way = world.connect_devices();
    EXPECT_EQ(way.substr(0, 43), "host memory (ranks 0 and 1 share the device") << way;
    EXPECT_NE(way.find(" 0000:05:00.0)"), std::string::npos) << way;
    const Tensor t = there(values(DType::kF32, 100, 1, world.rank()));
    world.all_reduce(t);
    expect_same_bits(t, reduced(DType::kF32, 100, 1, 2, ReduceOp::kSum), "all_reduce");
  });
  EXPECT_EQ(nccl_emulation::record().collectives, 0);
}

TEST_F(NcclTest, ATensorOnAnotherDeviceThanTheCommunicatorsIsRefused) {
  run_ranks(2, [](Communicator& world) {
    connect(world);
    const cuda::DeviceScope other(7);
    const Tensor t = zeros({4}, DType::kF32, test_device());
    const std::string message = message_of<CommError>([&] { world.all_reduce(t); });
    EXPECT_NE(message.find(text("all_reduce f32[4] on cuda: the tensor is on cuda:7, this communicator was connected for "
                                "cuda:", world.rank())),
              std::string::npos)
        << message;
  });
}

// The device never gets past the call; the watchdog asks NCCL why.
TEST_F(NcclTest, AnErrorOnTheDeviceEndsTheJobWithNcclsWords) {
  ::testing::internal::CaptureStderr();
  const std::string message = message_of<CommError>([] {
    run_ranks(2, [](Communicator& world) {
      connect(world);
      const Tensor t = there(values(DType::kBF16, 4096, 1, world.rank()));
      world.all_reduce(t);
      world.barrier();
      if (world.rank() == 0) nccl_emulation::break_network(ncclRemoteError, "connection closed by n7");
      world.barrier();
      Watchdog watchdog({.timeout_s = 60}, world);
      watchdog.set_step(120);
      world.all_reduce_async(t).wait();  // enqueued: the error comes later
      for (;;) world.barrier();
    });
  });
  const std::string printed = ::testing::internal::GetCapturedStderr();
  for (const std::string& text : {message, printed})
    for (const char* part : {"comm[world ", "/2, host ", "all_reduce bf16[4096] on cuda at step 120 failed: ",
                             "NCCL: remote process exited or there was a network error: connection closed by n7"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  const auto record = nccl_emulation::record();
  EXPECT_EQ(record.made, 2);
  EXPECT_EQ(record.aborted, 2);
  EXPECT_EQ(record.destroyed, 0);
}

// Without a watchdog the next call meets it; and every one after that.
TEST_F(NcclTest, TheNextCallMeetsAnErrorToo) {
  const std::string message = message_of<CommError>([] {
    run_ranks(2, [](Communicator& world) {
      connect(world);
      const Tensor t = there(values(DType::kBF16, 4096, 1, world.rank()));
      world.all_reduce(t);
      world.barrier();
      if (world.rank() == 0) nccl_emulation::break_network(ncclSystemError, "socket gone");
      world.barrier();
      world.all_reduce(t);  // enqueued
      for (int i = 0; i < 2; ++i) {
        const std::string message = message_of<CommError>([&] { world.all_reduce(t); });
        EXPECT_NE(message.find(text("comm[world ", world.rank(), "/2, host ")), std::string::npos) << message;
        EXPECT_NE(message.find("all_reduce bf16[4096] on cuda: NCCL: unhandled system error: socket gone"),
                  std::string::npos)
            << message;
      }
      world.all_reduce(t);
    });
  });
  EXPECT_NE(message.find("socket gone"), std::string::npos) << message;
  EXPECT_EQ(nccl_emulation::record().aborted, 2);
  EXPECT_EQ(nccl_emulation::record().destroyed, 0);
}

TEST_F(NcclTest, RanksThatCannotJoinSayWhy) {
  nccl_emulation::break_network(ncclSuccess, "no route to n7");
  nccl_emulation::refuse_ranks(true);
  const std::string message = message_of<CommError>([] {
    run_ranks(2, [](Communicator& world) {
      connect(world);
      world.all_reduce(zeros({4}, DType::kF32, test_device()));
    });
  });
  nccl_emulation::refuse_ranks(false);
  EXPECT_NE(message.find("comm[world "), std::string::npos) << message;
  EXPECT_NE(message.find("ncclCommInitRank: NCCL: unhandled system error: no route to n7"), std::string::npos) << message;
}

}  // namespace
}  // namespace trireme
