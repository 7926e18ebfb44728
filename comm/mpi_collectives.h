// Collectives among any ranks, over MPI's byte-moving collectives; sums are our own (comm/reduce.h), over the ranks of each
// host in their order and then over the hosts, so that bits do not depend on the algorithm MPI picks, and are those of
// comm/two_level.h.
//
// Each call starts with one small all-gather of what each rank called, so that all of them learn of a difference; tiny
// payloads travel in it. An all-reduce is then an all-to-all of parts, a local sum and an all-gather: as many bytes as a
// ring moves. Payloads go in chunks, which also keeps MPI's int counts in range.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "comm/backend.h"
#include "comm/host_layout.h"

namespace trireme {

class MpiCollectives {
 public:
  MpiCollectives(MPI_Comm comm, const HostLayout& layout, std::string label);
  void run(const Collective& collective) {
    if (!start(collective, 0)) finish(collective);
  }

  // The two halves of run(): ranks compare their calls; true if the payload went along and all is done. `place` goes to all
  // ranks; places() has those of all then, until the next call.
  bool start(const Collective& collective, uint64_t place);
  std::span<const uint64_t> places() const { return places_; }
  void finish(const Collective& collective);

 private:
  struct Packet {
    static constexpr size_t kBytes = 512, kCapacity = kBytes - sizeof(OpCall) - sizeof(uint64_t);
    OpCall call;
    uint64_t place;
    std::byte payload[kCapacity];
  };
  void finish_from_packets(const Collective& c, size_t in_bytes);
  void all_reduce(const Collective& c);
  void all_reduce_medium(const Collective& c);
  void all_gather(const Collective& c);
  void reduce_scatter(const Collective& c);
  void broadcast(const Collective& c);
  void all_to_all(const Collective& c);
  void reduce(void* out, int64_t n, const OpCall& call);  // parts_, into out
  std::byte* staging(size_t num_bytes);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  size_t chunk_bytes_ = 0;  // of a payload that goes in one call of MPI, all parts together
  std::string label_;
  std::vector<Packet> packets_;
  std::vector<std::byte> staging_;
  std::vector<uint64_t> places_;
  std::vector<int> turn_of_, host_sizes_;  // a rank's place in the order of sums; that order's groups
  std::vector<const void*> parts_;         // in that order
  std::vector<int> send_counts_, send_offsets_, recv_counts_, recv_offsets_;
};

}  // namespace trireme
