#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>

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
  } catch (const std::bad_alloc& e) {
    const std::string what = e.what();  // an allocator's own says how much of what
    abort_job(1, what == std::bad_alloc().what() ? "out of memory" : what);
  } catch (const std::exception& e) {
    abort_job(1, e.what());
  }
}

LaunchedPlace launched_place() {
  const auto number = [](std::initializer_list<const char*> names, int otherwise) {
    for (const char* name : names)
      if (const char* value = std::getenv(name)) return std::atoi(value);
    return otherwise;
  };
  LaunchedPlace place;
  place.rank = std::max(0, number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}, 0));
  place.size = std::max(1, number({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}, 1));
  return place;
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
