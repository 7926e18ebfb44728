#include "tensor/threads.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <thread>

namespace trireme {

void set_num_threads(int n) { omp_set_num_threads(n); }

int num_threads() { return omp_get_max_threads(); }

int threads_for(int ranks) {
  // A launcher may have bound each rank to its own cores; then they are not shared any more.
  cpu_set_t mask;
  const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  int mine = all;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) mine = CPU_COUNT(&mask);
  return std::max(1, mine < all ? mine : all / std::max(1, ranks));
}

}  // namespace trireme
