// Ranks that are processes started by mpirun, srun or the like.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"

namespace trireme {

// MPI is up while this lives. One a process, made in main before any other thread uses MPI; communicators and watchdogs
// must be gone before it. Destroyed by an exception, it ends the whole job with exit code 1, since other ranks may wait
// for this one: so catch errors within its scope and call abort_job, which says what happened. Otherwise its end waits for
// that of all other ranks.
// Throws CommError if the MPI library has no MPI_THREAD_MULTIPLE.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;

 private:
  int unwinding_at_start_;
};

// True if this process was started as one of several ranks, or of one, by an MPI launcher.
bool started_by_mpi_launcher();

// The MPI library, its version, and the thread level it gave: "Open MPI v4.1.4, standard 3.1, MPI_THREAD_MULTIPLE". Needs an
// MpiEnvironment.
std::string mpi_library();

struct MpiWorldOptions {
  // Communicators whose ranks are all on one host exchange data through memory they share. False: through MPI always.
  bool share_memory = true;
  // Large tensors made from now on lie in memory that the other ranks of the host reach, so that collectives work on them
  // in place, on several hosts too (comm/two_level.h); once on, this stays for the process. False: through windows, and
  // across hosts through MPI alone.
  bool in_place = true;
  // What this rank takes for the name of its host; empty: the system's. Ranks of one host that give different names
  // communicate as if they were on several: for tests.
  std::string host{};
};

// All ranks of the job. Collective; needs an MpiEnvironment.
std::unique_ptr<Communicator> make_mpi_world(const MpiWorldOptions& options = {});

// Ends all ranks of the job: prints "rank 3, host n1: message" to stderr, then calls MPI_Abort. If that hangs, this process
// exits within 5 s by itself. Without an MpiEnvironment it just prints and exits.
[[noreturn]] void abort_job(int exit_code, const std::string& message);

}  // namespace trireme
