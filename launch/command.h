// Subcommands. Each is one file and one line in main.cc's table.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/mpi.h"
#include "comm/watchdog.h"

namespace trireme {

constexpr int kExitUsage = 2;

using Words = std::vector<std::string>;

// Each returns an exit code. ConfigError and FileError on all ranks alike: one line is printed, the exit code is 2.
int run_train(const Words& words);
int run_eval(const Words& words);
int run_predict(const Words& words);
int run_generate(const Words& words);
int run_convert(const Words& words);
int run_tokenize(const Words& words);
int run_prepare(const Words& words);
int run_config(const Words& words);
int run_ckpt(const Words& words);
int run_doctor(const Words& words);

// This process's place in its job: MPI where a launcher started it, else a single rank.
class Job {
 public:
  // timeout_s: see Watchdog.
  explicit Job(double timeout_s);
  Communicator& world() { return *world_; }
  Watchdog& watchdog() { return *watchdog_; }

  // Runs fn. A ConfigError, which all ranks throw together, is printed by rank 0 and gives exit code 2; anything else is
  // one rank's failure, and ends the whole job at once with its message.
  int run(const std::function<int()>& fn);

 private:
  std::unique_ptr<MpiEnvironment> mpi_;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Watchdog> watchdog_;
};

// What the launcher that started this process said of its place, before any Job: rank 0 of 1 without one. What all ranks
// would print alike (help, a dry run) is printed by rank 0.
struct LaunchedPlace {
  int rank = 0, size = 1;
};
LaunchedPlace launched_place();

// For an error that all ranks meet alike before they have a Job, such as an unknown option: rank 0 alone prints it, and
// none ends before. Returns kExitUsage.
int end_with_error(const std::string& message);

}  // namespace trireme
