// Collectives among ranks of one host that share memory: threads of a process, or processes with a mapped segment.
//
// Every call starts with a post: what the rank calls, and where its input lies, or a small input itself. Once all have posted,
// ranks compare what they called (all throw CommError if two differ, and can go on after it), and then
//   tensors that every rank of the group can reach (HostMemory) are read and written in place, with a barrier at the end;
//   small inputs, if no rank's can be reached, and tiny ones (comm/collective_table.h says which) are read from the posts:
//   one barrier in all;
//   others go through windows, a slice at a time: a rank copies its slice into its window, passes a barrier, reads the
//   others' windows. Slice s+1 is copied in while slice s is reduced and slice s-1 copied out, so there is one barrier a
//   slice.
// Each element is reduced by one rank in rank order (comm/reduce.h), so all ranks get the same bits.
//
// A barrier is a word of memory a rank, that it alone writes. Who waits spins briefly, then yields, then sleeps (futex), so
// that there may be more ranks than cores; calls in the background sleep at once, since someone computes meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "comm/backend.h"
#include "comm/collective_table.h"
#include "comm/reduce.h"

namespace trireme {

// Memory of the group's ranks that all of them can reach: a range of num_bytes of each rank, and where it begins in this
// process. Threads reach everything: a range from address 0 on.
struct HostMemory {
  uint64_t num_bytes = 0;
  std::vector<uintptr_t> bases;  // of each rank, in order
};

// Part `part` of n elements cut in `parts`: equal up to the last, and whole cache lines, so that no line has two writers.
struct Range {
  int64_t begin, count;
};
Range part_of(int64_t n, int parts, int part, size_t element);

class HostGroup {
 public:
  static constexpr int kMostRanks = 256;  // so that a part of a slice is not too small

  // Bytes of the shared segment; it starts zeroed and is aligned to 64. Pages of it are touched as payloads need them.
  static size_t num_bytes(int size);

  // `waiting` is called when a barrier sleeps, at least every 50 ms, and may throw to give the call up, if it then does so on
  // all ranks; it may be empty. `label` starts messages. With `crowded` (more ranks than cores) barriers do not spin.
  // Processes pass memory without `waiting`: one that gives up unmaps nothing that others may be reading.
  HostGroup(void* segment, int rank, int size, std::string label, bool crowded, HostMemory memory,
            std::function<void()> waiting);

  void run(const Collective& collective);
  // The ways of calls from here on. Ranks may for a while use different tables.
  void use(const CollectiveTable& table) { table_ = table; }
  // All ranks of the group arrive. Those in the background leave the core to others while they wait.
  void barrier(bool background);

  // Wakes ranks that sleep in a barrier, so that they call `waiting`. From any rank or thread.
  static void wake(void* segment, int size);

 private:
  static constexpr int kBuffers = 3;                          // of each rank's window; see in_slices
  static constexpr size_t kBufferBytes = size_t{256} << 10;  // one slice: of 64 KB to 2 MB the fastest, by a little

  struct [[gnu::packed]] Head {
    uint32_t call_id = 0;   // of what the rank calls
    uint64_t input_at = 0;  // in its HostMemory, or kPosted, or kOutOfReach
  };
  struct Word;
  struct Post;
  struct Slot;
  class Presence;

  void barrier();
  template <class Met>
  void meet_all(const Head& head, Met met);
  void wait_for(int rank);
  void ask_to_go_on();
  void post_and_compare(const Collective& c);
  const Post& post_of(int rank) const;
  std::byte* window(int rank, uint64_t buffer) const;

  CollectiveCase case_of(const Collective& c) const;
  bool can_be_posted(const Collective& c) const;
  size_t input_bytes(const Collective& c) const;
  template <class Test>
  bool all_inputs(const Collective& c, Test test) const;
  void finish_from_posts(const Collective& c);
  std::byte* input_of(int rank) const;
  void run_in_place(const Collective& c, Stores stores);
  void run_through_windows(const Collective& c);

  template <class CopyIn, class Middle, class CopyOut>
  void in_slices(int64_t num_slices, CopyIn copy_in, Middle middle, CopyOut copy_out);
  template <class CopyIn, class CopyOut>
  void in_slices(int64_t num_slices, CopyIn copy_in, CopyOut copy_out);

  void all_reduce(const Collective& c);
  void all_gather(const Collective& c);
  void reduce_scatter(const Collective& c);
  void broadcast(const Collective& c);
  void all_to_all(const Collective& c);

  Slot* slots_;
  std::byte* windows_;
  int rank_, size_;
  std::string label_;
  bool crowded_;
  HostMemory memory_;
  CollectiveTable table_;
  std::function<void()> waiting_;
  const bool fences_by_sleepers_;
  bool background_ = false;         // the call under way is
  std::vector<Head> heads_;         // of the call under way, of each rank
  std::vector<const void*> parts_;  // scratch of the reductions, one pointer a rank
  std::vector<void*> outs_;
  // The same on all ranks:
  uint32_t turn_ = 0;        // barriers entered
  uint64_t num_posts_ = 0;
  uint64_t num_slices_ = 0;  // passed through the windows so far
};

}  // namespace trireme
