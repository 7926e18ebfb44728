// A set of ranks and the collectives among them. Backends: self (one rank), threads (N ranks in one process), MPI.
// A communicator is passed explicitly; nothing here knows a global rank. A group of size 1 costs nothing.
//
// Each call exists in a blocking form (all_reduce) and an asynchronous one (all_reduce_async), which runs on the
// communicator's own progress thread, in the order of the calls, so that it overlaps with the caller's compute.
// A blocking call first waits for the asynchronous ones before it. Every rank must make the same calls in the same
// order on one communicator; different communicators are independent, and may be used at once from different threads.
// Tensors must live and stay untouched until the call returns or the Work is waited for.
//
// Tensors on a CUDA device, the one that the thread has selected, are exchanged in the order of the caller's stream
// (tensor/cuda/devices.h): a call uses what was enqueued before it, and what is enqueued after it, or after Work::wait() of
// an asynchronous one, finds its result. The host may return earlier, or wait (comm/device_way.h). Both operands of a call
// are on one device; ranks agree on whether it is one.
//
// Sums of bf16 and f16 are accumulated in f32 and rounded once. For the same inputs and the same ranks on each host, every
// rank receives the same bits, whatever the backend does, and two runs give the same bits.
//
// Errors: a peer that fails, a peer that never arrives (timeout), and mismatched shapes throw CommError naming the
// communicator, the operation, and the rank at fault.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace trireme {

class CollectiveTable;
class JobLink;
struct GroupShape;

// kMax and kMin of floats give NaN where any rank has one. Integer sums wrap.
enum class ReduceOp : uint8_t { kSum, kMax, kMin };

// An asynchronous call under way. wait() returns when it is done and rethrows its error. Destroying an unfinished Work
// waits for it (errors are then reported by the next call on the communicator). Movable; empty by default.
class Work {
 public:
  struct State {
    virtual ~State() = default;
    virtual void wait() = 0;
    virtual bool done() const = 0;
  };
  Work() = default;
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}
  void wait() {
    if (auto state = std::move(state_)) state->wait();
  }
  bool done() const { return !state_ || state_->done(); }

 private:
  std::shared_ptr<State> state_;
};

// Time spent and bytes moved, for the run's summary.
struct CommStats {
  double blocked_s = 0;     // the caller waited in blocking calls and in Work::wait()
  uint64_t num_calls = 0;
  uint64_t num_bytes = 0;   // payload handed to collectives and sends
};

// One call as it was carried out, for profiles.
struct CommEvent {
  using Clock = std::chrono::steady_clock;
  std::string_view call;   // "all_reduce", "recv"
  std::string_view group;  // the communicator's name
  int ranks = 1;           // of the group
  uint64_t num_bytes = 0;  // of the caller's input
  int peer = -1;           // other side of a send or receive, root of a broadcast
  // A collective on the caller's thread; one on the communicator's own, beside the caller's compute; the caller in
  // Work::wait() for such a one, or for a send or receive.
  enum class How : uint8_t { kBlocking, kBeside, kWait } how = How::kBlocking;
  Clock::time_point begin, end;
};

class CommObserver {
 public:
  virtual ~CommObserver() = default;
  virtual void done(const CommEvent& event) = 0;  // from any thread
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;  // "world", "tp", "dp": for messages
  virtual CommStats stats() const = 0;
  // Tells `observer` of each call that ends from here on; null: nobody. Not of groups split off. No asynchronous call may be
  // under way; `observer` must live until it is replaced. A group of one rank has nothing to tell.
  virtual void observe(CommObserver* observer) = 0;

  // Which ways collectives take from here on (comm/collective_table.h), also those of groups split off later; before, the
  // rules decide. Bits do not depend on it. The same table on every rank, between the same calls, none of them under way.
  virtual void use(const CollectiveTable& table) = 0;
  virtual GroupShape shape() const = 0;

  // t = op over ranks of t, elementwise, in place. f32, bf16, f16, i32, i64.
  virtual void all_reduce(const Tensor& t, ReduceOp op = ReduceOp::kSum) = 0;
  virtual Work all_reduce_async(const Tensor& t, ReduceOp op = ReduceOp::kSum) = 0;

  // out = rank 0's in, rank 1's in, ... : out has size() times the elements of in. in may be its own part of out.
  virtual void all_gather(const Tensor& in, const Tensor& out) = 0;
  virtual Work all_gather_async(const Tensor& in, const Tensor& out) = 0;

  // out = sum over ranks of the rank()-th of size() equal parts of in. out may be its own part of in.
  virtual void reduce_scatter(const Tensor& in, const Tensor& out) = 0;
  virtual Work reduce_scatter_async(const Tensor& in, const Tensor& out) = 0;

  virtual void broadcast(const Tensor& t, int root) = 0;
  // Part r of in goes to rank r; part r of out comes from rank r. Equal parts; in and out must not overlap.
  virtual void all_to_all(const Tensor& in, const Tensor& out) = 0;
  virtual void barrier() = 0;

  // Point to point, matched by (peer, tag >= 0) in order. send() never waits for its receive: it is asynchronous, and the
  // buffer must stay untouched until the Work is waited for. Work::wait() of a send may wait for the receive, so two
  // ranks that each wait for their send before they call recv() may wait for ever. Sends and receives are not ordered with
  // the collectives, nor with each other across tags. Both sides must name the same number of bytes; else CommError.
  virtual Work send(const Tensor& t, int peer, int tag) = 0;
  virtual Work recv(const Tensor& t, int peer, int tag) = 0;

  // Ranks with the same color (>= 0) form a communicator, ordered by key, then rank. Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key, const std::string& name) = 0;

  // How tensors on devices travel from here on, also in groups split off later: by NCCL, if every rank of the group has it and
  // a device of its own, else, as without this call, through host memory. The thread has selected its rank's device and no
  // call is under way. Collective. Returns what was chosen, for the first lines of a run: "NCCL 2.28.9 (/usr/lib/libnccl.so.2)",
  // "host memory (ranks 0 and 1 share the device n3 00000000:01:00.0)".
  virtual std::string connect_devices() = 0;

  // What the watchdog needs of the job this communicator is part of; null for a job of one rank. See watchdog.h.
  virtual std::shared_ptr<JobLink> job_link() const { return nullptr; }

  // Byte strings of any length, for control messages: every rank's string, in rank order. Blocking.
  std::vector<std::string> all_gather_strings(const std::string& mine);
  // The string of `root`, on every rank. Blocking.
  std::string broadcast_string(const std::string& mine, int root);
  // Agreement on failure: each rank passes its error message or "". If any is not empty, all ranks throw CommError with
  // the first failing rank and its message. Blocking; to be called where a rank may have failed alone (reading a file,
  // writing a checkpoint), before the next collective.
  void agree(const std::string& error);
};

// The communicator of a single rank: every collective is a copy or nothing.
std::unique_ptr<Communicator> make_self_communicator(const std::string& name = "self");

}  // namespace trireme
