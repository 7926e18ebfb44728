// What all communicators of an MPI process share: the rank's board, its watchdog's line to the other ranks, and the
// thread that keeps sends and receives going.
#pragma once

#include <mpi.h>

#include <deque>
#include <memory>

#include "comm/host_group.h"
#include "comm/job_link.h"
#include "comm/memory_file.h"
#include "comm/mpi_transfer.h"
#include "comm/shared_mail.h"

namespace trireme {

// MPI_Comm_free with its object, but not after MPI_Finalize.
class MpiComm {
 public:
  explicit MpiComm(MPI_Comm comm) : comm_(comm) { MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN); }
  ~MpiComm();
  MpiComm(const MpiComm&) = delete;
  MPI_Comm get() const { return comm_; }
  static std::unique_ptr<MpiComm> duplicate_of(MPI_Comm comm);  // collective

 private:
  MPI_Comm comm_;
};

// Ranks ask and answer with small messages on a communicator of their own, from their watchdog threads.
class MpiJob final : public JobLink {
 public:
  // Collective over MPI_COMM_WORLD. `host` is this rank's; with in_place, ranks of a host map each other's arenas.
  MpiJob(const std::string& host, bool in_place);

  OpBoard& board() override { return board_; }
  const std::string& host(int world_rank) const override { return hosts_.at(world_rank); }
  void answer() override;
  std::vector<std::optional<RankReport>> ask(uint64_t group_id, const std::vector<int>& world_ranks,
                                             double patience_s) override;
  [[noreturn]] void end_job(int exit_code, const std::string& message) override;

  int world_rank() const { return rank_; }
  int world_size() const { return size_; }
  bool crowded() const { return crowded_; }  // this host has more ranks than cores
  // Memory that these world ranks, of this host, reach in place; of no bytes where they do not. A rank alone reaches all.
  HostMemory memory_of(const std::vector<int>& world_ranks) const;
  // A message of this rank with another, which must live on this host and reach its memory: has_mail_with.
  bool has_mail_with(int world_rank) const { return mail_ && arenas_[world_rank]; }
  std::shared_ptr<Transfer> post(const OpCall& call, uint64_t group, int world_peer, void* data, size_t num_bytes,
                                 std::string label);
  TransferProgress& transfers() { return transfers_; }

 private:
  struct Question;
  struct Answer;
  struct Outgoing {
    std::vector<char> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  void map_arenas();
  void send(const void* data, size_t num_bytes, int to, int tag);

  std::unique_ptr<MpiComm> comm_;
  int rank_ = 0, size_ = 1;
  bool crowded_ = false;
  std::vector<std::string> hosts_;
  std::vector<std::shared_ptr<MemoryFile>> arenas_;  // of each world rank; null: of another host, or there is none
  std::vector<int> neighbours_;  // world ranks of this host, this one too
  std::shared_ptr<SharedMail> mail_;
  OpBoard board_;
  std::deque<Outgoing> outgoing_;  // sends that may not have left yet
  uint64_t num_questions_ = 0;
  TransferProgress transfers_;
};

// MPI_Abort, and _exit should that not return within 5 s.
[[noreturn]] void end_processes(int exit_code);

}  // namespace trireme
