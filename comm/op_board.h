// What a rank's communicators are doing now: written by the communicators at the start and end of each call, read by
// the watchdog and by whoever must explain a timeout. One board a rank, shared by the rank's communicators.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace trireme {

enum class OpKind : uint8_t {
  kAllReduce, kAllGather, kReduceScatter, kBroadcast, kAllToAll, kBarrier, kSplit, kSend, kRecv
};
constexpr bool is_collective(OpKind kind) { return kind < OpKind::kSend; }
std::string_view name_of(OpKind kind);

// What a rank called; two ranks of a collective must agree on all of it. Trivially copyable: it travels between ranks.
struct OpCall {
  OpKind kind = OpKind::kBarrier;
  DType dtype = DType::kU8;
  ReduceOp op = ReduceOp::kSum;
  bool on_device = false;  // the tensors are on a CUDA device
  int32_t peer = -1;  // root of a broadcast, other side of a send or receive
  int32_t tag = 0;
  Shape shape;        // of the caller's input

  bool operator==(const OpCall& other) const = default;
};
// "all_reduce bf16[4096]", "broadcast f32[3] on cuda from rank 1", "recv f32[8] from rank 2, tag 5".
std::ostream& operator<<(std::ostream& out, const OpCall& call);

// Equal for equal calls, the same on all ranks.
inline uint64_t fingerprint(const OpCall& call) {
  uint64_t h = static_cast<uint64_t>(call.kind) | static_cast<uint64_t>(call.dtype) << 8 |
               static_cast<uint64_t>(call.op) << 16 | static_cast<uint64_t>(call.shape.rank()) << 24 |
               static_cast<uint64_t>(call.on_device) << 31 | static_cast<uint64_t>(static_cast<uint32_t>(call.peer)) << 32;
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 32;
  };
  mix(static_cast<uint64_t>(static_cast<uint32_t>(call.tag)));
  for (int64_t d : call.shape.dims()) mix(static_cast<uint64_t>(d));
  return h;
}

// A call that a device carries out after the processor has enqueued it. From any thread; throw nothing.
class DeviceCall {
 public:
  virtual ~DeviceCall() = default;
  virtual bool begun() = 0;  // its turn has come: what was enqueued before it has ended
  virtual bool ended() = 0;
  // What went wrong with it or with its communicator, "" if nothing did. It then never ends.
  virtual std::string failure() = 0;
};

// A communicator as the board knows it. All its ranks compute the same id.
struct GroupInfo {
  uint64_t id = 0;
  std::string name;
  int rank = 0;
  std::vector<int> world_ranks;  // of its ranks, in order
};
// The id of the communicator that the split_index-th split of `parent` forms of the ranks with `color`.
uint64_t child_group_id(uint64_t parent, uint64_t split_index, int color);

// How far a rank is with one communicator, and what it was last doing.
struct RankReport {
  int64_t num_entered = 0;  // collectives of the communicator that it entered
  int64_t step = -1;        // training step, or -1
  std::string activity;     // what it said it was doing, or ""
  std::string waiting_in;   // the call it has been in for longest, with its communicator, or ""
};

class OpBoard {
 public:
  using Clock = std::chrono::steady_clock;

  // A call under way.
  struct InFlight {
    uint64_t ticket = 0;
    OpCall call;
    Clock::time_point since;
    GroupInfo group;
    int64_t sequence = 0;  // of collectives: the how-manieth of its communicator, from 1
    std::string failure;   // of a device's call: why it will not end, or ""
  };

  // Communicators: registration, and the start and end of each call.
  int add_group(GroupInfo group);
  void remove_group(int slot);
  uint64_t begin(int slot, const OpCall& call, Clock::time_point since);  // a ticket
  void end(int slot, const OpCall& call, uint64_t ticket);
  // Instead of end(): a device carries the collective out. It is under way from when its turn on the stream is first seen to
  // have come, so that what waits for long kernels is not taken for stuck. Those of a communicator end in order.
  void leave_to_device(int slot, uint64_t ticket, std::shared_ptr<DeviceCall> call);

  // The rank says what it is doing.
  void set_activity(std::string activity);
  void set_step(int64_t step);

  // Calls under way, oldest first; of those that a device carries out the oldest of each communicator.
  std::vector<InFlight> in_flight();
  int64_t num_entered(uint64_t group_id) const;
  int64_t step() const;
  RankReport report(uint64_t group_id);

 private:
  // A few instructions long, taken by the rank at each call and by the watchdog now and then.
  class SpinLock {
   public:
    void lock() {
      while (flag_.test_and_set(std::memory_order_acquire)) {
      }
    }
    void unlock() { flag_.clear(std::memory_order_release); }

   private:
    std::atomic_flag flag_;
  };
  struct Entry {
    uint64_t ticket = 0;
    OpCall call;
    Clock::time_point since;
    int64_t sequence = 0;
  };
  struct OnDevice {
    Entry entry;
    std::shared_ptr<DeviceCall> call;
    bool begun = false;  // was seen to have
  };
  struct Group {
    GroupInfo info;
    bool live = false;
    std::deque<OnDevice> on_device;
    // A communicator is in one collective at a time.
    mutable SpinLock lock;
    Entry collective;  // under way if its ticket is not 0
    int64_t num_entered = 0;
  };
  struct Message {
    int slot;
    Entry entry;
  };

  std::vector<InFlight> in_flight_locked();
  static void forget_ended(std::deque<OnDevice>& calls);
  const Group* find(uint64_t group_id) const;

  mutable std::mutex mutex_;  // of what follows, but for groups' collectives
  std::deque<Group> groups_;  // their addresses stay
  std::vector<Message> messages_;
  std::atomic<uint64_t> next_ticket_{1};
  std::string activity_;
  int64_t step_ = -1;
};

}  // namespace trireme
