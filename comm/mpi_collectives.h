// Collectives among ranks of several hosts, over MPI's byte-moving collectives; sums are our own (comm/reduce.h), in rank
// order, so that bits depend neither on the algorithm MPI picks nor on which ranks share a host.
//
// Each call starts with one small all-gather of what each rank called, so that all of them learn of a difference; tiny
// payloads travel in it. An all-reduce is then an all-to-all of parts, a local sum and an all-gather: as many bytes as a
// ring moves. Payloads go in chunks, which also keeps MPI's int counts in range.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <string>
#include <vector>

#include "comm/backend.h"

namespace trireme {

class MpiCollectives {
 public:
  MpiCollectives(MPI_Comm comm, std::string label);
  void run(const Collective& collective);

 private:
  struct Packet {
    static constexpr size_t kBytes = 512, kCapacity = kBytes - sizeof(OpCall);
    OpCall call;
    std::byte payload[kCapacity];
  };
  bool exchange_packets(const Collective& c);  // true if the payload went along
  void finish_from_packets(const Collective& c, size_t in_bytes);
  void all_reduce(const Collective& c);
  void all_reduce_medium(const Collective& c);
  void all_gather(const Collective& c);
  void reduce_scatter(const Collective& c);
  void broadcast(const Collective& c);
  void all_to_all(const Collective& c);
  std::byte* staging(size_t num_bytes);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  size_t chunk_bytes_ = 0;  // of a payload that goes in one call of MPI, all parts together
  std::string label_;
  std::vector<Packet> packets_;
  std::vector<std::byte> staging_;
  std::vector<const void*> parts_;
  std::vector<int> send_counts_, send_offsets_, recv_counts_, recv_offsets_;
};

}  // namespace trireme
