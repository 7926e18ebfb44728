// Sends and receives among ranks of one process, matched by (from, to, tag) in order. Nothing is buffered: whichever side
// comes second copies from the sender's tensor to the receiver's, as a large message of MPI does.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "comm/backend.h"

namespace trireme {

class Mailbox : public std::enable_shared_from_this<Mailbox> {
 public:
  // `waiting` is called when Transfer::wait() sleeps, at least every 50 ms, and may throw to give the wait up.
  // `label` starts messages. A send and a receive that differ in dtype or count fail on both sides.
  std::shared_ptr<Transfer> post(const OpCall& call, int rank, void* data, size_t num_bytes, std::string label,
                                 std::function<void()> waiting);
  void wake();  // calls `waiting` of all that sleep

 private:
  class Letter;
  struct Queues {
    std::deque<std::shared_ptr<Letter>> sends, recvs;
  };
  using Key = std::tuple<int, int, int>;  // from, to, tag

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, Queues> queues_;
};

}  // namespace trireme
