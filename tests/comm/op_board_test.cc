#include "comm/op_board.h"

#include <gtest/gtest.h>

#include <memory>

namespace trireme {
namespace {

struct FakeCall final : DeviceCall {
  bool begun() override { return has_begun; }
  bool ended() override { return has_ended; }
  std::string failure() override { return failed; }
  bool has_begun = false, has_ended = false;
  std::string failed;
};

class OpBoardTest : public ::testing::Test {
 protected:
  OpBoard board;
  int slot = board.add_group({7, "tp", 0, {0, 1}});

  std::shared_ptr<FakeCall> enqueue(int64_t count) {
    OpCall call;
    call.kind = OpKind::kAllReduce;
    call.shape = {count};
    auto fake = std::make_shared<FakeCall>();
    board.leave_to_device(slot, board.begin(slot, call, OpBoard::Clock::time_point()), fake);
    return fake;
  }
};

TEST_F(OpBoardTest, ADevicesCallIsUnderWayFromItsTurnToItsEnd) {
  const auto first = enqueue(8), second = enqueue(9);
  EXPECT_EQ(board.num_entered(7), 2);
  EXPECT_TRUE(board.in_flight().empty()) << "it waits for kernels before it";
  const auto before = OpBoard::Clock::now();
  first->has_begun = true;
  auto calls = board.in_flight();
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].sequence, 1);
  EXPECT_EQ(calls[0].call.shape, Shape({8}));
  EXPECT_GE(calls[0].since, before) << "the time in which it waited for its turn does not count";
  EXPECT_EQ(board.in_flight()[0].since, calls[0].since);
  first->has_ended = second->has_begun = true;
  calls = board.in_flight();
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].sequence, 2);
  second->has_ended = true;
  EXPECT_TRUE(board.in_flight().empty());
}

TEST_F(OpBoardTest, AFailedCallIsShownBeforeItsTurn) {
  enqueue(8)->failed = "the network is gone";
  const auto calls = board.in_flight();
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].failure, "the network is gone");
}

TEST_F(OpBoardTest, ACallOfTheProcessorMayFollowOnesOfTheDevice) {
  const auto on_device = enqueue(8);
  on_device->has_begun = true;
  OpCall call;
  const uint64_t ticket = board.begin(slot, call, OpBoard::Clock::now());
  EXPECT_EQ(board.in_flight().size(), 2u);
  board.end(slot, call, ticket);
  EXPECT_EQ(board.in_flight().size(), 1u);
  board.remove_group(slot);
  EXPECT_TRUE(board.in_flight().empty());
}

}  // namespace
}  // namespace trireme
