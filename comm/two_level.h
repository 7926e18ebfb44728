// Collectives of a group that spans several hosts with several ranks each: through shared memory inside each host, where
// ranks work on each other's tensors in place, and by MPI between hosts, so that of what ranks of one host have in common
// each byte crosses the network once.
//
// P ranks of each host, as many as the smallest host has, are its carriers. Carrier p of every host belongs to one MPI
// communicator.
//   all_reduce      carrier p sums part p of P over its host's ranks, in f32, in their order; the carriers of part p sum over
//                   the hosts, in their order, round once, and write the part to their host's ranks.
//   reduce_scatter  each rank sums, over its host's ranks, the parts of the ranks with its own index on each host; ranks of
//                   one index exchange these partial sums. Hosts must have the same number of ranks.
//   all_gather      ranks of one index gather over the hosts; then each copies what its neighbours have gathered. The same
//                   number of ranks, too.
//   broadcast       part p goes from the root's host to carrier p of each, where the others copy it.
// Those that need as many ranks on every host and do not find them, and all_to_all, go through MPI alone (MpiCollectives).
// Sums have the same order and bits there.
#pragma once

#include <mpi.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/host_group.h"
#include "comm/host_layout.h"
#include "comm/mpi_job.h"

namespace trireme {

class TwoLevel {
 public:
  static constexpr uint64_t kOutOfReach = ~uint64_t{0};

  // Null on all ranks if one step is as good (one host, or one rank a host), or if ranks of a host do not reach each other's
  // tensors. `memory_here` is that of this host's ranks. Collective over comm.
  static std::unique_ptr<TwoLevel> make(MPI_Comm comm, const HostLayout& layout, HostMemory memory_here,
                                        const std::string& label, bool crowded);

  // The tensor that others of the host work on: where it is in this rank's memory, for run(); or kOutOfReach.
  uint64_t place_of(const Collective& c, int ranks) const;
  // Whether such calls can go this way, if all ranks' places are within reach. The same on all ranks.
  bool takes(const Collective& c) const;
  // places: of every rank of the group. All ranks have entered the call, and it is the same on all.
  void run(const Collective& c, std::span<const uint64_t> places);

 private:
  TwoLevel(const HostLayout& layout, HostMemory memory_here, std::shared_ptr<MemoryFile> segment,
           std::unique_ptr<MpiComm> across, const std::string& label, bool crowded);
  std::byte* tensor_of(int index) const;  // of this host's index-th rank, in the call under way
  void all_reduce(const Collective& c);
  void reduce_scatter(const Collective& c);
  void all_gather(const Collective& c);
  void broadcast(const Collective& c);
  std::byte* staging(std::vector<std::byte>& bytes, size_t num_bytes);

  HostLayout layout_;
  int num_hosts_, num_here_, num_carriers_;
  bool even_;  // every host has as many ranks
  HostMemory memory_;
  std::shared_ptr<MemoryFile> segment_;
  std::unique_ptr<MpiComm> across_;  // null: this rank carries nothing
  std::string label_;
  HostGroup group_;  // for its barrier
  std::span<const uint64_t> places_;
  std::vector<std::byte> partial_, received_;
  std::vector<const void*> parts_, partials_;
  std::vector<int> send_counts_, send_offsets_, recv_counts_, recv_offsets_;
};

}  // namespace trireme
