// Cores of the host: which of them a rank computes on, and the pinning of its threads to them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

using Cores = std::vector<int>;  // logical ones, by the system's numbers

// Those that the calling thread may run on, ascending; empty where the system does not say.
Cores allowed_cores();
// "0-3,8" as /sys has it, ascending; empty for what is no such list, or has a number past 2^20.
Cores cores_of_list(std::string_view list);
// "0-3,8": the same back, for people.
std::string list_of_cores(Cores cores);

// The lowest logical core on each one's physical core. A core that `cpus` (the system's folder of cores) knows nothing
// of is taken to be alone on its own.
std::map<int, int> physical_cores(const Cores& cores, const std::filesystem::path& cpus = "/sys/devices/system/cpu");

struct CoreShare {
  Cores cores;          // as threads take them: one of each physical core first, their SMT siblings last; empty: none
  bool own = false;     // no other rank may run on any of them: whoever started the ranks has bound them
  std::string problem;  // why there are none
};
// What rank `rank` of a host's ranks has of the cores that they are allowed. A rank that is allowed cores which no other
// rank is has all of them. Ranks that are allowed the same cores, as by `mpirun --bind-to none`, have equal parts of
// them in their order: whole physical cores while there are enough, else logical ones; more ranks than those have none,
// nor do ranks whose cores overlap in part. Pure.
CoreShare core_share(const std::vector<Cores>& allowed, int rank, const std::map<int, int>& physical);

// While it lives, OpenMP's threads of the calling thread run on `share` alone: each but the first on one core of it, in
// its order. The first, which is the caller, may use the whole share, where the others leave it the first core, because
// every thread that it starts inherits its cores: helpers (the checkpoint's writer, the communication's progress and
// queue, the watchdog), which would otherwise take turns with it on one core, and threads that OpenMP starts anew after
// a library's region of fewer threads has ended the old ones; renew() pins those again. Restores the caller's cores.
class PinnedThreads {
 public:
  PinnedThreads(Cores share, int threads);  // REQUIRES: 1 <= threads <= share.size()
  ~PinnedThreads();
  PinnedThreads(const PinnedThreads&) = delete;
  PinnedThreads& operator=(const PinnedThreads&) = delete;

  void renew();
  // The system refused (a core was taken from the container meanwhile, or a filter of calls): "" or what it said.
  const std::string& problem() const { return problem_; }

 private:
  const Cores before_, share_;
  const int threads_;
  std::string problem_;
};

}  // namespace trireme
