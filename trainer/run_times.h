// Where the wall time of a run went.
#pragma once

#include "comm/communicator.h"
#include "trainer/metrics.h"

namespace trireme {

// Seconds of one rank, since this start.
struct RunTimes {
  double compute = 0, communication = 0, bubble = 0, optimizer = 0, data = 0, evaluation = 0, checkpoint = 0;
};

// The mean over the ranks. Collective.
RunTimes mean_over(Communicator& world, const RunTimes& mine);

// The shares of s.total_s, and as other_s what they leave of it.
void put_times(const RunTimes& times, RunSummary& s);

}  // namespace trireme
