#include <csignal>
#include <cstdio>

#include "launch/command.h"

namespace trireme {

Job::Job(double timeout_s) {
  if (started_by_mpi_launcher()) {
    mpi_ = std::make_unique<MpiEnvironment>();
    world_ = make_mpi_world();
  } else {
    world_ = make_self_communicator("world");
  }
  watchdog_ = std::make_unique<Watchdog>(WatchdogOptions{timeout_s}, *world_);
}

int Job::run(const std::function<int()>& fn) {
  try {
    return fn();
  } catch (const ConfigError& e) {
    if (world_->rank() == 0) std::fprintf(stderr, "trireme: %s\n", e.what());
    return kExitUsage;
  } catch (const std::bad_alloc&) {
    abort_job(1, "out of memory");
  } catch (const std::exception& e) {
    abort_job(1, e.what());
  }
}

int end_with_error(const std::string& message) {
  try {
    return Job(60).run([&]() -> int { throw ConfigError(message); });
  } catch (const std::exception&) {  // no MPI to be had: each says it
    std::fprintf(stderr, "trireme: %s\n", message.c_str());
    return kExitUsage;
  }
}

}  // namespace trireme
