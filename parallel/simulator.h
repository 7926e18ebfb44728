// Runs a schedule on paper: no communication, no tensors, a clock of ticks. Proves that it ends, and gives
// what a planner and a person want to know before a cluster is asked for: time, bubble, activations held,
// messages under way.
#pragma once

#include <vector>

#include "parallel/schedule.h"

namespace trireme {

// Ticks of one pass of one chunk. The defaults are those of the papers: backward twice the forward, half of
// it for the weights, messages free.
struct PassCosts {
  double forward = 1;
  double backward = 2;
  double backward_input = 1;
  double backward_weight = 1;
  double send = 0;  // latency of a message between two stages; local hand-overs are free
  std::vector<double> virtual_stage_scale;  // empty, or a factor on the passes of each virtual stage
};

struct StageSummary {
  double busy = 0;
  double bubble_fraction = 0;  // of the total time, the part in which this stage does nothing
  int peak_live = 0;  // most (micro-batch, chunk) pairs held at once: from the start of their forward to the
                      // end of their last backward. A pair is 1 / chunks of a micro-batch's activations.
};

struct Simulation {
  std::vector<std::vector<TimedAction>> stages;  // in the order of the schedule
  std::vector<StageSummary> summaries;
  double total = 0;                 // from the first start to the last end
  double bubble_fraction = 0;       // of all stages together
  int peak_messages_in_flight = 0;  // most messages between stages produced and not yet taken up
};

// Throws ScheduleError unless every stage does each pass of each (micro-batch, chunk) exactly once, backward
// after forward, weights after inputs, and all stages together reach the end: an executor can then run the
// schedule. A deadlock is reported with what each waiting stage waits for.
void validate(const Schedule& schedule);

// Every action starts as soon as its stage is free and what it needs has arrived. Sends never wait for their
// receives. Validates first. Throws ConfigError for a negative or non-finite cost, or a wrong number of
// scales.
Simulation simulate(const Schedule& schedule, const PassCosts& costs = {});

// The same figures for measured actions, in any order and of any part of a step; the unit of time is the
// caller's. Throws ScheduleError for a stage or action outside the shape, or times that are not finite or run
// backwards.
Simulation summarize(const ScheduleShape& shape, const std::vector<TimedAction>& actions);

}  // namespace trireme
