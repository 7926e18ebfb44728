// Sends and receives among processes of one host, matched by (group, from, to, tag) in order. Nothing waits in send() or
// recv(), and the bytes are copied once, from the sender's tensor to the receiver's: both lie in arenas that all ranks of the
// host map (comm/shared_arena.h). The receiver copies when it waits; a sender that waits while its receiver is busy elsewhere does
// it instead. So a message needs no thread that keeps it going.
//
// Each side writes a letter in its own arena. The one that comes first is linked from the lane of the two ranks, which a spin
// lock guards for the few instructions of a search. Small messages lie in the letter itself. A larger tensor that is not in
// its rank's arena goes by way of memory that is: a second copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/backend.h"
#include "comm/shared_arena.h"

namespace trireme {

class SharedMail : public std::enable_shared_from_this<SharedMail> {
 public:
  // Bytes of the segment that the ranks of a host share; it starts zeroed.
  static size_t num_bytes(int ranks);

  // For the index-th rank of a host, whose ranks' arenas begin at `arenas` in this process. `crowded`: more ranks than cores.
  SharedMail(std::shared_ptr<MemoryFile> segment, std::shared_ptr<SharedArena> own, std::vector<std::byte*> arenas, int index,
             bool crowded);

  // From any thread. `peer` is an index on this host, `group` an id that only communicators of the same ranks share; `label`
  // starts messages. A send and a receive that differ in dtype or count fail on both sides.
  std::shared_ptr<Transfer> post(const OpCall& call, uint64_t group, int peer, void* data, size_t num_bytes,
                                 std::string label);

 private:
  struct Letter;
  struct Queue;
  struct Lane;
  class SharedTransfer;

  Letter* take_letter();
  void give_back(Letter* letter);
  std::byte* take(size_t num_bytes);
  Letter* find(Queue& queue, int owner, uint64_t group, int tag) const;  // and takes it out
  void append(Queue& queue, Letter* letter) const;
  Letter* at(int owner, uint64_t place) const;
  uint64_t place_of(const Letter* letter, int owner) const;

  std::shared_ptr<MemoryFile> segment_;
  std::shared_ptr<SharedArena> own_;
  std::vector<std::byte*> arenas_;
  int index_;
  bool crowded_;
  std::mutex mutex_;
  std::vector<Letter*> unused_;
};

}  // namespace trireme
