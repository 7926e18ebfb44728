// Collectives among ranks of one host that share memory: threads of a process, or processes with a mapped segment.
//
// Each rank owns a window of three buffers. A payload goes through in slices: a rank copies its slice into its window,
// passes a barrier, reads the others' windows. Slice s+1 is copied in while slice s is reduced and slice s-1 copied out,
// so there is one barrier a slice. Each element is reduced by one rank in rank order (comm/reduce.h), so all ranks get
// the same bits. A barrier spins briefly, then yields, then sleeps (futex), so that there may be more ranks than cores.
//
// Before any data is used, ranks compare what they called; all throw CommError if two differ, and can go on after it.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "comm/backend.h"

namespace trireme {

class HostGroup {
 public:
  static constexpr int kMostRanks = 256;  // so that a part of a slice is not too small

  // Bytes of the shared segment; it starts zeroed and is aligned to 64. Pages of it are touched as payloads need them.
  static size_t num_bytes(int size);

  // `waiting` is called when a barrier sleeps, at least every 50 ms, and may throw to give the call up; it may be empty.
  // `label` starts messages. With `crowded` (more ranks than cores) barriers do not spin.
  HostGroup(void* segment, int rank, int size, std::string label, bool crowded, std::function<void()> waiting);

  void run(const Collective& collective);

  // Wakes ranks that sleep in a barrier, so that they call `waiting`. From any rank or thread.
  static void wake(void* segment);

 private:
  struct Control;
  struct Slot;

  void barrier();
  void compare(const OpCall& mine);
  void post(const OpCall& call);
  std::byte* window(int rank, uint64_t buffer) const;

  template <class CopyIn, class Middle, class CopyOut>
  void in_slices(const OpCall& call, int64_t num_slices, CopyIn copy_in, Middle middle, CopyOut copy_out);
  template <class CopyIn, class CopyOut>
  void in_slices(const OpCall& call, int64_t num_slices, CopyIn copy_in, CopyOut copy_out);

  void all_reduce(const Collective& c);
  void all_reduce_small(const Collective& c);
  void all_gather(const Collective& c);
  void reduce_scatter(const Collective& c);
  void broadcast(const Collective& c);
  void all_to_all(const Collective& c);

  Control* control_;
  Slot* slots_;
  std::byte* windows_;
  int rank_, size_;
  std::string label_;
  bool crowded_;
  std::function<void()> waiting_;
  std::vector<const void*> parts_;  // scratch of the reductions, one pointer a rank
  uint64_t num_calls_ = 0;   // the same on all ranks
  uint64_t num_slices_ = 0;  // passed through the windows so far; the same on all ranks
};

}  // namespace trireme
