#include "trainer/run_times.h"

#include <algorithm>

#include "parallel/tensor_collectives.h"

namespace trireme {

RunTimes mean_over(Communicator& world, const RunTimes& mine) {
  std::vector<double> sums = sum_over(world, {mine.compute, mine.communication, mine.bubble, mine.optimizer, mine.data,
                                              mine.evaluation, mine.checkpoint});
  for (double& s : sums) s /= world.size();
  return {sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6]};
}

void put_times(const RunTimes& t, RunSummary& s) {
  s.compute_s = t.compute;
  s.communication_s = t.communication;
  s.bubble_s = t.bubble;
  s.optimizer_s = t.optimizer;
  s.data_s = t.data;
  s.evaluation_s = t.evaluation;
  s.checkpoint_s = t.checkpoint;
  const double known = t.compute + t.communication + t.bubble + t.optimizer + t.data + t.evaluation + t.checkpoint;
  s.other_s = std::max(0.0, s.total_s - known);
}

}  // namespace trireme
