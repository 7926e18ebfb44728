// Runs any Schedule on one stage of a pipeline: forwards and backwards in the schedule's order, activations and gradients
// sent to the neighbours it names. What a forward is, the executor does not know: that is a StageWork.
#pragma once

#include <chrono>

#include "comm/communicator.h"
#include "parallel/schedule.h"
#include "tensor/tape.h"

namespace trireme {

class StageWork {
 public:
  virtual ~StageWork() = default;

  // The hidden states that travel between virtual stages, the same on both sides.
  virtual Shape activation_shape(int micro_batch) const = 0;
  virtual DType activation_dtype() const = 0;
  virtual Device device() const = 0;

  // x: the hidden states of the virtual stage before, a variable of `tape` (undefined on the first). Returns the hidden
  // states, or on the last virtual stage the loss, f32 [1]. tape is null in forward-only schedules.
  virtual Tensor forward(int micro_batch, int chunk, const Tensor& x, Tape* tape) = 0;

  // Around the backward of a chunk. `last`: no other micro-batch's backward of this chunk follows in this step.
  virtual void backward_begins(int /*micro_batch*/, int /*chunk*/, bool /*last*/) {}
  virtual void backward_done(int /*micro_batch*/, int /*chunk*/, bool /*last*/) {}

  // For the watchdog and the timeline: what this rank does from now on.
  virtual void activity(const std::string& /*what*/) {}
  // Is told of the ops of every tape; null: nobody.
  virtual OpObserver* observer() { return nullptr; }
};

struct PipelineReport {
  std::chrono::steady_clock::time_point begin;  // of the call
  std::vector<TimedAction> actions;             // of this stage, in seconds since then
  double total_s = 0;
  double busy_s = 0;                 // inside actions
  double wait_s = 0;                 // for messages
  int peak_live = 0;                 // most (micro-batch, chunk) forwards held at once
};

// Collective over pp: each stage runs schedule.stages[pp.rank()]. Throws what the work throws, and CommError.
// REQUIRES: validate(schedule) has passed, schedule.shape.stages == pp.size().
PipelineReport run_schedule(const Schedule& schedule, Communicator& pp, StageWork& work);

}  // namespace trireme
