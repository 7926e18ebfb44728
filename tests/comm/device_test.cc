// Communicators with tensors on a CUDA device, or on the emulated one (TRIREME_CUDA_EMULATED).
#include <gtest/gtest.h>

#include "comm/threads.h"
#include "comm_values.h"
#include "suite.h"
#include "tensor/cuda/devices.h"
#include "tensor/on_device.h"
#include "tests/cuda_device.h"

namespace trireme {
namespace {

using testing::expect_same_bits;
using testing::message_of;
using testing::reduced;
using testing::test_device;
using testing::there;
using testing::values;

// Through host memory: all ranks share device 0.
class StagedRanks : public ::testing::TestWithParam<std::tuple<testing::CommCase, int>> {
  void SetUp() override { testing::require_device(); }
};

TEST_P(StagedRanks, Case) {
  const auto& [test, size] = GetParam();
  run_ranks(size, test.run, {.timeout_s = 60});
}

INSTANTIATE_TEST_SUITE_P(Suite, StagedRanks,
                         ::testing::Combine(::testing::ValuesIn(testing::comm_cases()), ::testing::Values(1, 2, 3, 4)),
                         [](const auto& info) {
                           return text(std::get<0>(info.param).name, "On", std::get<1>(info.param));
                         });

class DeviceComm : public ::testing::Test {
  void SetUp() override { testing::require_device(); }
};

// More than a staging buffer holds, and no multiple of one.
TEST_F(DeviceComm, TensorsTravelInPieces) {
  run_ranks(2, [](Communicator& world) {
    constexpr int64_t n = (int64_t{16} << 20) / 4 + 12345;
    const int me = world.rank();
    const std::vector<std::vector<int>> hosts = {{0, 1}};
    const Tensor sum = reduced(DType::kF32, n, 3, hosts, ReduceOp::kSum), half = sum.reshape({n}).rows(0, n / 2);
    const Tensor t = there(values(DType::kF32, n, 3, me));
    world.all_reduce(t);
    expect_same_bits(t, sum, "all_reduce");

    const Tensor u = there(values(DType::kF32, n, 4, me));
    world.broadcast(u, 1);
    expect_same_bits(u, values(DType::kF32, n, 4, 1), "broadcast");

    const Tensor in = there(values(DType::kF32, n / 2 * 2, 5, me)), part = zeros({n / 2}, DType::kF32, test_device());
    const Tensor parts = reduced(DType::kF32, n / 2 * 2, 5, hosts, ReduceOp::kSum);
    world.reduce_scatter(in, part);
    expect_same_bits(part, parts.rows(me * (n / 2), (me + 1) * (n / 2)), "reduce_scatter");

    const Tensor gathered = zeros({n / 2 * 2}, DType::kF32, test_device());
    world.all_gather(part, gathered);
    expect_same_bits(gathered, parts, "all_gather");

    const Tensor swapped = zeros({n / 2 * 2}, DType::kF32, test_device()), expected = zeros({n / 2 * 2}, DType::kF32);
    for (int r = 0; r < 2; ++r)
      copy(values(DType::kF32, n / 2 * 2, 5, r).rows(me * (n / 2), (me + 1) * (n / 2)),
           expected.rows(r * (n / 2), (r + 1) * (n / 2)));
    const Tensor again = there(values(DType::kF32, n / 2 * 2, 5, me));
    world.all_to_all(again, swapped);
    expect_same_bits(swapped, expected, "all_to_all");
  });
}

TEST_F(DeviceComm, TensorsOnTwoDevicesAreRefused) {
  run_ranks(2, [](Communicator& world) {
    const Tensor host = zeros({4}, DType::kF32), there = zeros({4}, DType::kF32, test_device());
    const std::string message = message_of<ShapeError>([&] { world.all_to_all(host, there); });
    EXPECT_NE(message.find("all_to_all of f32[4] on cpu into f32[4] on cuda:0; they must be on one device"),
              std::string::npos)
        << message;
    world.barrier();
  });
}

TEST_F(DeviceComm, ATensorOnTheHostAndOneOnADeviceDisagree) {
  run_ranks(2, [](Communicator& world) {
    const Tensor t = zeros({4}, DType::kF32, world.rank() ? test_device() : Device::cpu());
    const std::string message = message_of<CommError>([&] { world.all_reduce(t); });
    EXPECT_NE(message.find("rank 0 called all_reduce f32[4], rank 1 called all_reduce f32[4] on cuda"), std::string::npos)
        << message;
  });
}

// A message may come from a device and go to the host, and the other way round.
TEST_F(DeviceComm, MessagesCrossBetweenHostAndDevice) {
  run_ranks(2, [](Communicator& world) {
    const Device device = world.rank() ? test_device() : Device::cpu();
    const Tensor out = to_device(values(DType::kBF16, 4001, 1, world.rank()), device);
    const Tensor in = zeros({4001}, DType::kBF16, device);
    Work r = world.recv(in, 1 - world.rank(), 2), s = world.send(out, 1 - world.rank(), 2);
    r.wait();
    s.wait();
    expect_same_bits(in, values(DType::kBF16, 4001, 1, 1 - world.rank()), "message");
  });
}

#ifdef TRIREME_CUDA_EMULATED
TEST_F(DeviceComm, ATensorOnADeviceThatIsNotSelectedIsRefused) {
  run_ranks(1, [](Communicator& world) {
    const Tensor t = zeros({4}, DType::kF32, test_device());
    const cuda::DeviceScope other(1);
    const std::string message = message_of<ConfigError>([&] { world.all_reduce(t); });
    EXPECT_NE(message.find("a tensor is on cuda:0, but this thread computes on cuda:1"), std::string::npos) << message;
  });
}

// What the other tests rest on: a processor that reads device memory by itself is found out.
TEST_F(DeviceComm, TheEmulationsMemoryIsClosedToTheProcessor) {
  const Tensor t = zeros({4}, DType::kF32, test_device());
  EXPECT_DEATH(
      {
        volatile float value = t.data<float>()[0];
        (void)value;
      },
      "");
}

// Ranks on two devices, asynchronously: the progress thread selects the rank's device.
TEST_F(DeviceComm, AsynchronousCallsRunOnTheRanksDevice) {
  run_ranks(2, [](Communicator& world) {
    cuda::select_device(world.rank());
    const Tensor t = there(values(DType::kI32, 1001, 7, world.rank()));
    ASSERT_EQ(t.device().index, world.rank());
    Work work = world.all_reduce_async(t);
    work.wait();
    expect_same_bits(t, reduced(DType::kI32, 1001, 7, 2, ReduceOp::kSum), "all_reduce");
  });
}
#endif

}  // namespace
}  // namespace trireme
