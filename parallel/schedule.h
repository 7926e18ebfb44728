// Pipeline schedules as data. A schedule is, for every stage, the list of what it does in one training step,
// in order. It is a pure function of a shape: no communication, no clock. The executor runs it, the simulator
// (simulator.h) proves that it ends and counts its bubble, the timeline (timeline.h) draws it; all of them
// take who waits for whom from needs() and produces() below.
//
// The layers of a model are cut into stages * chunks consecutive pieces, the virtual stages. Virtual stage v
// is chunk v / stages of stage v % stages (Narayanan et al. 2021, arXiv:2104.04473). With one chunk, a
// virtual stage is a stage.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace trireme {

// A schedule that cannot be run: an action missing, twice, out of range or before what it depends on, or a
// deadlock. Ours come out right by construction and by test; this is for who writes another one.
class ScheduleError : public Error {
  using Error::Error;
};

// What a stage does to one micro-batch in one of its chunks. Backward is done either whole (kBackward), or as
// two actions: kBackwardInput gives the gradient of the chunk's input, which the stage before waits for, and
// kBackwardWeight, for which nobody waits, that of its weights.
enum class Pass : uint8_t { kForward, kBackward, kBackwardInput, kBackwardWeight };
const char* pass_name(Pass pass);  // "forward", "backward", "backward-input", "backward-weight"

struct Action {
  Pass pass;
  int micro_batch;
  int chunk;  // of this stage: 0 unless interleaved
  bool operator==(const Action&) const = default;
};

struct ScheduleShape {
  int stages;
  int micro_batches;
  int chunks = 1;  // of each stage
  bool operator==(const ScheduleShape&) const = default;
};

using StageActions = std::vector<Action>;

struct Schedule {
  std::string name;
  ScheduleShape shape;
  std::vector<StageActions> stages;  // stages[s]: what stage s does, in order
  bool forward_only = false;         // evaluation: no backward is to be expected
};

// The schedule of a training step:
//   gpipe        all forwards, then all backwards. Huang et al. 2019, arXiv:1811.06965. Holds every
//                micro-batch.
//   1f1b         PipeDream-Flush, Narayanan et al. 2021, arXiv:2006.09503. The bubble of gpipe; stage s holds
//                at most stages - s micro-batches.
//   interleaved  1F1B over chunks >= 2 a stage, Narayanan et al. 2021, arXiv:2104.04473: the bubble divided
//                by chunks, for more messages and more activations held. Any number of micro-batches; a
//                multiple of stages has the shortest bubble.
//   zb-h1        Qi et al. 2023, arXiv:2401.10241: 1F1B with backward in two parts, weight gradients filling
//                the bubble; no stage holds more micro-batches than the first one does in 1f1b.
// In every one, the passes of a kind over one chunk go through the micro-batches in their order, so that
// gradients are summed in the same order whatever the schedule. Throws ConfigError for an unknown name, a
// shape below 1 or above 2^24 actions, and chunks that do not suit the name.
Schedule make_schedule(const std::string& name, const ScheduleShape& shape);
std::vector<std::string> schedule_names();

// Forwards alone, for evaluation; any chunks. Throws ConfigError as make_schedule does. Its name is
// "forward".
Schedule make_forward_schedule(const ScheduleShape& shape);

int num_virtual_stages(const ScheduleShape& shape);
int virtual_stage(const ScheduleShape& shape, int stage, int chunk);
int stage_of(const ScheduleShape& shape, int virtual_stage);
int chunk_of(const ScheduleShape& shape, int virtual_stage);

enum class Payload : uint8_t { kActivation, kGradient };

// What one virtual stage hands to the next (activations) or to the one before (gradients).
struct Message {
  Payload payload;
  int micro_batch;
  int from_stage, from_chunk;
  int to_stage, to_chunk;
  int tag;  // in [0, num_tags(shape)), one for each (payload, micro-batch, pair of virtual stages)
  bool local() const { return from_stage == to_stage; }  // a hand-over inside one stage, nothing to send
  bool operator==(const Message&) const = default;
};

// What `action` of `stage` cannot start without, and what it gives when it ends; nothing at the ends of the
// model and for kBackwardWeight. The message that an action produces equals the one that its receiver needs.
// Besides messages, a backward needs the forward of its micro-batch and chunk, and kBackwardWeight its
// kBackwardInput, on the same stage. REQUIRES: stage and action inside the shape.
std::optional<Message> needs(const ScheduleShape& shape, int stage, const Action& action);
std::optional<Message> produces(const ScheduleShape& shape, int stage, const Action& action);
int num_tags(const ScheduleShape& shape);

// "backward of micro-batch 3", or with several chunks "backward of micro-batch 3, chunk 1".
std::string describe(const ScheduleShape& shape, const Action& action);

// An action with its times, of the simulator (ticks) or of a run (seconds).
struct TimedAction {
  int stage;
  Action action;
  double start, end;
};

}  // namespace trireme
