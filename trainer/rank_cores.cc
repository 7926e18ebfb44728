#include "trainer/rank_cores.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "tensor/threads.h"

namespace trireme {

RankCores rank_cores(Communicator& world) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  RankCores found;
  found.allowed = allowed_cores();
  found.host_cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::string begin = text(host, "\n");
  const std::vector<std::string> all = world.all_gather_strings(begin + list_of_cores(found.allowed));
  std::vector<Cores> allowed;
  int place = 0;
  for (int r = 0; r < world.size(); ++r) {
    const std::string& line = all[static_cast<size_t>(r)];
    if (!line.starts_with(begin)) continue;
    if (r == world.rank()) place = static_cast<int>(allowed.size());
    allowed.push_back(cores_of_list(std::string_view(line).substr(begin.size())));
  }
  found.ranks_on_host = static_cast<int>(allowed.size());
  found.share = core_share(allowed, place, physical_cores(found.allowed));
  return found;
}

int default_threads(const RankCores& cores) {
  const int part = cores.share.cores.empty() ? static_cast<int>(cores.allowed.size()) / cores.ranks_on_host
                                             : static_cast<int>(cores.share.cores.size());
  return std::max(1, std::min(threads_for(cores.ranks_on_host), part));
}

std::string why_not_pinned(const RankCores& cores, PinMode mode, int threads) {
  if (mode == PinMode::kOff) return "run.pin=off";
  const CoreShare& share = cores.share;
  if (!share.problem.empty()) return share.problem;
  if (static_cast<size_t>(threads) > share.cores.size())
    return text(threads, " threads have ", share.cores.size(), share.cores.size() == 1 ? " core" : " cores");
  if (omp_get_proc_bind() != omp_proc_bind_false) return "OMP_PROC_BIND is set, and OpenMP binds its threads itself";
  if (mode == PinMode::kAuto && !share.own) return "run.pin=auto, and ranks share their cores";
  if (mode == PinMode::kAuto && static_cast<int>(cores.allowed.size()) >= cores.host_cores)
    return "run.pin=auto, and the rank may use all cores of the host";
  return "";
}

}  // namespace trireme
