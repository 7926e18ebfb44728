// A job that goes wrong in the way its argument names, for fault_test.cc. Every rank first prints "pid N".
#include <mpi.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>

#include "comm/mpi.h"
#include "comm/watchdog.h"

using namespace trireme;

namespace {

// path: "shared" or "mpi", or "hosts": the last rank takes itself to be on host "far".
int run(const std::string& fault, const std::string& path) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const bool far = path == "hosts" && rank == size - 1;
  const auto world = make_mpi_world({.share_memory = path != "mpi", .host = far ? "far" : ""});
  Watchdog watchdog({.timeout_s = 1, .patience_s = 1}, *world);
  std::cout << text("pid ", getpid(), "\n") << std::flush;
  const auto pairs = world->split(world->rank() / 2, 0, "tp");
  world->barrier();
  watchdog.set_step(120);
  const bool at_fault = world->rank() == world->size() - 1;
  const Tensor t = zeros({64, 1024}, DType::kBF16);
  if (at_fault) {
    watchdog.set_activity("forward of micro-batch 3");
    if (fault == "missing" || fault == "message") pause();
    if (fault == "stopped") raise(SIGSTOP);
    if (fault == "killed") raise(SIGKILL);
    if (fault == "aborts") abort_job(17, "weights.bin: damaged");
    if (fault == "throws") throw FileError("weights.bin: damaged");
    if (fault == "forgets") return 0;
  }
  if (fault == "message")
    world->recv(t, world->size() - 1, 7).wait();
  else
    world->all_reduce(t);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  MpiEnvironment mpi;
  try {
    return run(argv[1], argc < 3 ? "shared" : argv[2]);
  } catch (const Error& e) {
    if (!std::strcmp(argv[1], "throws")) abort_job(3, e.what());
    throw;
  }
}
