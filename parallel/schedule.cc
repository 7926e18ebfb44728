#include "parallel/schedule.h"

#include <algorithm>

namespace trireme {
namespace {

constexpr int64_t kMaxActions = int64_t{1} << 24;

// Appends actions, and passes over micro-batches that are there only to fill a group.
class StageBuilder {
 public:
  explicit StageBuilder(int micro_batches) : micro_batches_(micro_batches) {}
  void add(Pass pass, int micro_batch, int chunk = 0) {
    if (micro_batch < micro_batches_) actions_.push_back({pass, micro_batch, chunk});
  }
  StageActions take() { return std::move(actions_); }

 private:
  int micro_batches_;
  StageActions actions_;
};

StageActions gpipe_stage(const ScheduleShape& shape, int) {
  StageBuilder b(shape.micro_batches);
  for (int m = 0; m < shape.micro_batches; ++m) b.add(Pass::kForward, m);
  for (int m = 0; m < shape.micro_batches; ++m) b.add(Pass::kBackward, m);
  return b.take();
}

// As many forwards first as it takes for the first gradient to come back; then a forward and a backward in
// turn.
StageActions one_f_one_b_stage(const ScheduleShape& shape, int stage) {
  StageBuilder b(shape.micro_batches);
  const int warmup = std::min(shape.stages - stage - 1, shape.micro_batches);
  for (int m = 0; m < warmup; ++m) b.add(Pass::kForward, m);
  for (int m = 0; m < shape.micro_batches; ++m) {
    if (m + warmup < shape.micro_batches) b.add(Pass::kForward, m + warmup);
    b.add(Pass::kBackward, m);
  }
  return b.take();
}

// The order of 1f1b. Stage s puts its weight gradients off by s micro-batches: the gradients of inputs then
// reach the early stages sooner by what was put off, and the work put off fills the end, where the late
// stages would be idle.
StageActions zb_h1_stage(const ScheduleShape& shape, int stage) {
  StageBuilder b(shape.micro_batches);
  const int warmup = std::min(shape.stages - stage - 1, shape.micro_batches);
  for (int m = 0; m < warmup; ++m) b.add(Pass::kForward, m);
  for (int m = 0; m < shape.micro_batches; ++m) {
    if (m + warmup < shape.micro_batches) b.add(Pass::kForward, m + warmup);
    b.add(Pass::kBackwardInput, m);
    if (m >= stage) b.add(Pass::kBackwardWeight, m - stage);
  }
  for (int m = std::max(0, shape.micro_batches - stage); m < shape.micro_batches; ++m)
    b.add(Pass::kBackwardWeight, m);
  return b.take();
}

// The k-th of the (micro-batch, chunk) pairs, in groups of `stages` micro-batches: all of a group through
// chunk 0, then through chunk 1, and so on, then the next group. A stage that has sent a group on gets it
// back for its next chunk.
struct Turn {
  int micro_batch, chunk;
};
Turn interleaved_turn(const ScheduleShape& shape, int k) {
  const int group_turns = shape.stages * shape.chunks;
  const int in_group = k % group_turns;
  return {k / group_turns * shape.stages + in_group % shape.stages, in_group / shape.stages};
}

// The last group is filled up to whole, and what the filling would do is then left out. Leaving out a
// micro-batch cannot make others wait, since micro-batches depend on each other by their order on a stage
// alone; so that the order stays free of deadlock, and no later, for any number of micro-batches.
int interleaved_turns(const ScheduleShape& shape) {
  const int groups = (shape.micro_batches + shape.stages - 1) / shape.stages;
  return groups * shape.stages * shape.chunks;
}

StageActions interleaved_stage(const ScheduleShape& shape, int stage) {
  StageBuilder b(shape.micro_batches);
  const int turns = interleaved_turns(shape);
  const int warmup = std::min(2 * (shape.stages - stage - 1) + (shape.chunks - 1) * shape.stages, turns);
  const auto forward = [&](int k) {
    const Turn t = interleaved_turn(shape, k);
    b.add(Pass::kForward, t.micro_batch, t.chunk);
  };
  for (int k = 0; k < warmup; ++k) forward(k);
  for (int k = 0; k < turns; ++k) {
    if (k + warmup < turns) forward(k + warmup);
    const Turn t = interleaved_turn(shape, k);
    b.add(Pass::kBackward, t.micro_batch, shape.chunks - 1 - t.chunk);
  }
  return b.take();
}

StageActions forward_stage(const ScheduleShape& shape, int) {
  StageBuilder b(shape.micro_batches);
  for (int k = 0; k < interleaved_turns(shape); ++k) {
    const Turn t = interleaved_turn(shape, k);
    b.add(Pass::kForward, t.micro_batch, t.chunk);
  }
  return b.take();
}

// To add a schedule: its stage function above, and its line here.
struct Generator {
  const char* name;
  bool needs_chunks;  // two or more a stage; otherwise exactly one
  StageActions (*stage)(const ScheduleShape&, int stage);
};
constexpr Generator kGenerators[] = {
    {"gpipe", false, gpipe_stage},
    {"1f1b", false, one_f_one_b_stage},
    {"interleaved", true, interleaved_stage},
    {"zb-h1", false, zb_h1_stage},
};

void check_shape(const ScheduleShape& shape) {
  check<ConfigError>(shape.stages >= 1 && shape.micro_batches >= 1 && shape.chunks >= 1, "pipeline of ",
                     shape.stages, " stages, ", shape.micro_batches, " micro-batches and ", shape.chunks,
                     " chunks a stage; each must be at least 1");
  // Divisions, so that nothing overflows. The last group of interleaved is counted whole, and backward in two
  // parts.
  const int64_t rounded = static_cast<int64_t>(shape.micro_batches) + shape.stages;
  check<ConfigError>(3 * rounded <= kMaxActions / shape.stages / shape.chunks, "pipeline of ", shape.stages,
                     " stages, ", shape.micro_batches, " micro-batches and ", shape.chunks,
                     " chunks a stage is more than ", kMaxActions,
                     " actions a step; use fewer micro-batches, each of more sequences");
}

Schedule generate(const std::string& name, const ScheduleShape& shape,
                  StageActions (*stage)(const ScheduleShape&, int)) {
  Schedule schedule{name, shape, {}};
  schedule.stages.reserve(shape.stages);
  for (int s = 0; s < shape.stages; ++s) schedule.stages.push_back(stage(shape, s));
  return schedule;
}

// The pair of virtual stages (below, below + 1) that a message crosses, counted by `below`.
Message message(const ScheduleShape& shape, Payload payload, int micro_batch, int below) {
  const int from = payload == Payload::kActivation ? below : below + 1;
  const int to = payload == Payload::kActivation ? below + 1 : below;
  const int crossings = num_virtual_stages(shape) - 1;
  return {payload,
          micro_batch,
          stage_of(shape, from),
          chunk_of(shape, from),
          stage_of(shape, to),
          chunk_of(shape, to),
          2 * (micro_batch * crossings + below) + (payload == Payload::kGradient ? 1 : 0)};
}

bool passes_gradient(Pass pass) { return pass == Pass::kBackward || pass == Pass::kBackwardInput; }

}  // namespace

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::kForward: return "forward";
    case Pass::kBackward: return "backward";
    case Pass::kBackwardInput: return "backward-input";
    case Pass::kBackwardWeight: return "backward-weight";
  }
  return "unknown";
}

Schedule make_schedule(const std::string& name, const ScheduleShape& shape) {
  const auto* generator = std::find_if(std::begin(kGenerators), std::end(kGenerators),
                                       [&](const Generator& g) { return name == g.name; });
  if (generator == std::end(kGenerators)) {
    std::string known;
    for (const Generator& g : kGenerators) known += (known.empty() ? "" : ", ") + std::string(g.name);
    throw ConfigError(text("unknown pipeline schedule \"", name, "\"; use one of ", known));
  }
  check_shape(shape);
  check<ConfigError>(!generator->needs_chunks || shape.chunks >= 2, "schedule ", name,
                     " needs at least 2 chunks a stage, found ", shape.chunks,
                     "; set 2 or more, or use schedule 1f1b");
  check<ConfigError>(generator->needs_chunks || shape.chunks == 1, "schedule ", name,
                     " has 1 chunk a stage, found ", shape.chunks, "; set 1, or use schedule interleaved");
  return generate(name, shape, generator->stage);
}

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const Generator& g : kGenerators) names.push_back(g.name);
  return names;
}

Schedule make_forward_schedule(const ScheduleShape& shape) {
  check_shape(shape);
  Schedule schedule = generate("forward", shape, forward_stage);
  schedule.forward_only = true;
  return schedule;
}

int num_virtual_stages(const ScheduleShape& shape) { return shape.stages * shape.chunks; }
int virtual_stage(const ScheduleShape& shape, int stage, int chunk) { return chunk * shape.stages + stage; }
int stage_of(const ScheduleShape& shape, int virtual_stage) { return virtual_stage % shape.stages; }
int chunk_of(const ScheduleShape& shape, int virtual_stage) { return virtual_stage / shape.stages; }
int num_tags(const ScheduleShape& shape) { return 2 * shape.micro_batches * (num_virtual_stages(shape) - 1); }

std::optional<Message> needs(const ScheduleShape& shape, int stage, const Action& action) {
  const int v = virtual_stage(shape, stage, action.chunk);
  if (action.pass == Pass::kForward && v > 0)
    return message(shape, Payload::kActivation, action.micro_batch, v - 1);
  if (passes_gradient(action.pass) && v + 1 < num_virtual_stages(shape))
    return message(shape, Payload::kGradient, action.micro_batch, v);
  return std::nullopt;
}

std::optional<Message> produces(const ScheduleShape& shape, int stage, const Action& action) {
  const int v = virtual_stage(shape, stage, action.chunk);
  if (action.pass == Pass::kForward && v + 1 < num_virtual_stages(shape))
    return message(shape, Payload::kActivation, action.micro_batch, v);
  if (passes_gradient(action.pass) && v > 0)
    return message(shape, Payload::kGradient, action.micro_batch, v - 1);
  return std::nullopt;
}

std::string describe(const ScheduleShape& shape, const Action& action) {
  std::string result = text(pass_name(action.pass), " of micro-batch ", action.micro_batch);
  if (shape.chunks > 1) result += text(", chunk ", action.chunk);
  return result;
}

}  // namespace trireme
