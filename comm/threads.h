// Ranks that are threads of one process: for tests of everything that communicates, without a cluster.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace trireme {

struct ThreadRanksOptions {
  double timeout_s = 0;  // a call that waits longer fails the job, naming who never entered it; 0: never
  bool in_place = true;  // collectives work on the ranks' tensors themselves; false: through windows, as for processes that
                         // do not reach each other's tensors
};

// Runs fn(world) on n threads, rank r with the r-th world, each with one OpenMP thread, and returns when all have ended.
// Communicators must not outlive fn.
//
// When a rank throws, every call of any other rank, under way or later, throws CommError naming it; the first error is
// rethrown here once all threads have ended. A rank that waits for one that has returned gets CommError too, so that
// forgotten calls do not hang.
void run_ranks(int n, const std::function<void(Communicator& world)>& fn, const ThreadRanksOptions& options = {});

}  // namespace trireme
