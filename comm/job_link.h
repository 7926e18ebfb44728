// How a watchdog reaches the other ranks of its job, whatever they are: threads, or processes on other hosts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/op_board.h"

namespace trireme {

class JobLink {
 public:
  virtual ~JobLink() = default;

  virtual OpBoard& board() = 0;                          // of this rank
  virtual const std::string& host(int world_rank) const = 0;

  // Answers questions of other ranks that have come in. Called by the watchdog many times a second.
  virtual void answer() = 0;
  // What the ranks say of the group, in the order of world_ranks; none where no answer came within patience_s. Goes
  // on answering others meanwhile.
  virtual std::vector<std::optional<RankReport>> ask(uint64_t group_id, const std::vector<int>& world_ranks,
                                                     double patience_s) = 0;
  // Prints nothing. Ends the job: processes exit with exit_code and this does not return; ranks that are threads get
  // CommError(message) from the calls they are in.
  virtual void end_job(int exit_code, const std::string& message) = 0;
};

// One line for a call that took too long: what it was and for how long; who never entered it and what they were last
// doing; who did not answer. Asks the group's other ranks.
struct TimeoutReport {
  std::string message;
  bool lower_rank_waits = false;  // a rank before this one is in the same call, and will report it as well
};
TimeoutReport explain_timeout(JobLink& job, const OpBoard::InFlight& call, double waited_s, double patience_s);

}  // namespace trireme
