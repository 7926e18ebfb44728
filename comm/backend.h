// What a backend of Communicator implements: it moves the data of one group of ranks. Everything else is done once, in
// make_communicator(): checks of arguments, the progress thread of asynchronous calls, statistics, the board.
// To add a backend (NCCL, ...): implement Backend, and a function that makes the world's.
#pragma once

#include <memory>

#include "comm/collective_table.h"
#include "comm/communicator.h"
#include "comm/op_board.h"

namespace trireme {

// One collective as the backend sees it. Sizes are checked; in and out are as Communicator says.
struct Collective {
  OpKind kind = OpKind::kBarrier;  // what to do
  OpCall call;                     // what the caller called: ranks compare it, and messages name it
  const void* in = nullptr;
  void* out = nullptr;  // all_reduce and broadcast: the same as in
  Device device;        // where in and out lie; a Backend's run() gets those on the cpu alone (see device_way.h)
  bool background = false;  // the caller computes meanwhile: waiting must leave the core to it
  int64_t count = 0;    // elements of one part: all of t (all_reduce, broadcast), in (all_gather), out (reduce_scatter)
};

// One send or receive under way. Destroyed only when done, or when the job is given up.
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual void wait() = 0;  // throws CommError; a second call returns at once
  virtual bool done() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Blocking. Called by one thread at a time, in the same order on every rank. Throws CommError on all ranks, before any
  // output that another rank decides is written, if two ranks' calls differ.
  virtual void run(const Collective& collective) = 0;
  virtual std::shared_ptr<Backend> split(int color, int key, const std::string& name) = 0;

  // From any thread. The call's kind is kSend or kRecv.
  virtual std::shared_ptr<Transfer> transfer(const OpCall& call, void* data, size_t num_bytes) = 0;

  // As Communicator says. Groups of one rank have nothing to choose.
  virtual void use(const CollectiveTable&) {}
  virtual GroupShape shape() const { return {1, size()}; }

  virtual const GroupInfo& group() const = 0;
  int rank() const { return group().rank; }
  int size() const { return static_cast<int>(group().world_ranks.size()); }
  // "comm[tp 1/4, host n3]", for messages.
  virtual const std::string& label() const = 0;

  // Null for a job of one rank.
  virtual std::shared_ptr<JobLink> job() const = 0;
  // This rank is unwinding from an error. Returns true if calls under way now end with CommError on all ranks; false if
  // they may never end, so that they must not be waited for.
  virtual bool give_up() = 0;
};

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Backend> backend);

}  // namespace trireme
