#include "parallel/simulator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace trireme {
namespace {

constexpr int kPasses = 4;
constexpr double kNotYet = -1;

// One slot for each (stage, chunk, micro-batch, pass).
template <class T>
class ActionTable {
 public:
  ActionTable(const ScheduleShape& shape, T initial)
      : shape_(shape),
        values_(static_cast<size_t>(num_virtual_stages(shape)) * shape.micro_batches * kPasses, initial) {}
  T& at(int stage, const Action& a) { return at(stage, a.chunk, a.micro_batch, a.pass); }
  T& at(int stage, int chunk, int micro_batch, Pass pass) {
    const size_t v = virtual_stage(shape_, stage, chunk);
    return values_[(v * shape_.micro_batches + micro_batch) * kPasses + static_cast<int>(pass)];
  }

 private:
  ScheduleShape shape_;
  std::vector<T> values_;
};

bool inside(const ScheduleShape& shape, const Action& a) {
  return a.micro_batch >= 0 && a.micro_batch < shape.micro_batches && a.chunk >= 0 &&
         a.chunk < shape.chunks && static_cast<int>(a.pass) < kPasses;
}

// What each stage does on its own: every action inside the shape, once, and after those of its own that it
// builds on.
void validate_stages(const Schedule& schedule) {
  const ScheduleShape& shape = schedule.shape;
  const auto fail = [&](int stage, const auto&... message) {
    throw ScheduleError(text("schedule ", schedule.name, ", stage ", stage, ": ", message...));
  };
  check<ScheduleError>(shape.stages >= 1 && shape.micro_batches >= 1 && shape.chunks >= 1 &&
                           schedule.stages.size() == static_cast<size_t>(shape.stages),
                       "schedule ", schedule.name, ": ", schedule.stages.size(), " lists of actions for ",
                       shape.stages, " stages of ", shape.micro_batches, " micro-batches and ", shape.chunks,
                       " chunks");
  ActionTable<int> position(shape, -1);
  for (int s = 0; s < shape.stages; ++s) {
    const StageActions& actions = schedule.stages[s];
    for (size_t i = 0; i < actions.size(); ++i) {
      const Action& a = actions[i];
      if (!inside(shape, a))
        fail(s, "action ", i, " is ", pass_name(a.pass), " of micro-batch ", a.micro_batch, ", chunk ",
             a.chunk, "; there are ", shape.micro_batches, " micro-batches and ", shape.chunks,
             " chunks, counted from 0");
      int& seen = position.at(s, a);
      if (seen >= 0) fail(s, describe(shape, a), " stands twice, as action ", seen, " and ", i);
      seen = static_cast<int>(i);
    }
    for (int c = 0; c < shape.chunks; ++c) {
      for (int m = 0; m < shape.micro_batches; ++m) {
        const auto where = [&](Pass pass) { return position.at(s, c, m, pass); };
        const auto name = [&](Pass pass) { return describe(shape, {pass, m, c}); };
        const auto require = [&](Pass pass) {
          if (where(pass) < 0) fail(s, name(pass), " is missing");
        };
        const auto require_order = [&](Pass first, Pass then) {
          if (where(first) > where(then))
            fail(s, name(then), " is action ", where(then), ", before its ", pass_name(first), ", action ",
                 where(first));
        };
        require(Pass::kForward);
        const bool split = where(Pass::kBackwardInput) >= 0 || where(Pass::kBackwardWeight) >= 0;
        if (schedule.forward_only) {
          if (split || where(Pass::kBackward) >= 0)
            fail(s, "micro-batch ", m, ", chunk ", c, " has a backward, in a schedule of forwards alone");
        } else if (split) {
          if (where(Pass::kBackward) >= 0)
            fail(s, "micro-batch ", m, ", chunk ", c, " has its backward both whole and in two parts");
          require(Pass::kBackwardInput);
          require(Pass::kBackwardWeight);
          require_order(Pass::kForward, Pass::kBackwardInput);
          require_order(Pass::kBackwardInput, Pass::kBackwardWeight);
        } else {
          require(Pass::kBackward);
          require_order(Pass::kForward, Pass::kBackward);
        }
      }
    }
  }
}

// The pass by which stage `from` of a message produces it. A backward may be whole or in two parts, so ask
// the table.
double produced_at(ActionTable<double>& ended, const Message& m) {
  if (m.payload == Payload::kActivation)
    return ended.at(m.from_stage, m.from_chunk, m.micro_batch, Pass::kForward);
  return std::max(ended.at(m.from_stage, m.from_chunk, m.micro_batch, Pass::kBackward),
                  ended.at(m.from_stage, m.from_chunk, m.micro_batch, Pass::kBackwardInput));
}

[[noreturn]] void report_deadlock(const Schedule& schedule, const std::vector<size_t>& next) {
  size_t done = 0, total = 0;
  std::string waits;
  for (int s = 0; s < schedule.shape.stages; ++s) {
    done += next[s];
    total += schedule.stages[s].size();
    if (next[s] == schedule.stages[s].size()) continue;
    const Action& a = schedule.stages[s][next[s]];
    const Message m = *needs(schedule.shape, s, a);
    waits +=
        text("; stage ", s, " waits at ", describe(schedule.shape, a), " (its action ", next[s], ") for the ",
             m.payload == Payload::kActivation ? "activation" : "gradient", " from stage ", m.from_stage);
    if (schedule.shape.chunks > 1) waits += text(", chunk ", m.from_chunk);
  }
  throw ScheduleError(
      text("schedule ", schedule.name, " deadlocks after ", done, " of ", total, " actions", waits));
}

// Calls run(stage, action, time at which what the action needs was produced) in an order in which all are
// produced. REQUIRES: validate_stages passed.
template <class Run>
void run_in_order(const Schedule& schedule, Run run) {
  const ScheduleShape& shape = schedule.shape;
  ActionTable<double> ended(shape, kNotYet);
  std::vector<size_t> next(shape.stages, 0);
  // A stage runs until it must wait; the action that produces what it waits for then puts it in the queue
  // again.
  std::vector<int> runnable;
  for (int s = shape.stages - 1; s >= 0; --s) runnable.push_back(s);
  while (!runnable.empty()) {
    const int s = runnable.back();
    runnable.pop_back();
    const StageActions& actions = schedule.stages[s];
    for (; next[s] < actions.size(); ++next[s]) {
      const Action& a = actions[next[s]];
      const std::optional<Message> need = needs(shape, s, a);
      const double produced = need ? produced_at(ended, *need) : 0;
      if (produced == kNotYet) break;
      ended.at(s, a) = run(s, a, need, produced);
      const std::optional<Message> product = produces(shape, s, a);
      if (product && product->to_stage != s) runnable.push_back(product->to_stage);
    }
  }
  for (int s = 0; s < shape.stages; ++s)
    if (next[s] < schedule.stages[s].size()) report_deadlock(schedule, next);
}

double cost_of(const PassCosts& costs, Pass pass) {
  switch (pass) {
    case Pass::kForward: return costs.forward;
    case Pass::kBackward: return costs.backward;
    case Pass::kBackwardInput: return costs.backward_input;
    case Pass::kBackwardWeight: return costs.backward_weight;
  }
  return 0;
}

void check_costs(const ScheduleShape& shape, const PassCosts& costs) {
  const auto good = [](double c) { return std::isfinite(c) && c >= 0; };
  bool all_good = good(costs.send);
  for (int p = 0; p < kPasses; ++p) all_good = all_good && good(cost_of(costs, static_cast<Pass>(p)));
  for (double scale : costs.virtual_stage_scale) all_good = all_good && good(scale);
  check<ConfigError>(all_good, "costs of a simulated pipeline must be finite and not negative");
  const size_t scales = costs.virtual_stage_scale.size();
  check<ConfigError>(scales == 0 || scales == static_cast<size_t>(num_virtual_stages(shape)), scales,
                     " cost factors for ", num_virtual_stages(shape),
                     " virtual stages; give one for each, or none");
}

// The most intervals that are open at one time, an end at a time counted before a start at the same time.
int most_at_once(std::vector<std::pair<double, int>>& changes) {
  std::sort(changes.begin(), changes.end());
  int now = 0, most = 0;
  for (const auto& [time, change] : changes) most = std::max(most, now += change);
  return most;
}

// Pairs of one stage, alive from the start of their forward to the end of their last backward: counted in the
// order of the actions, which is that of their times. Evaluation holds nothing beyond the forward itself.
int peak_live(const ScheduleShape& shape, const std::vector<TimedAction>& actions) {
  const auto pair = [&](const Action& a) {
    return static_cast<size_t>(a.chunk) * shape.micro_batches + a.micro_batch;
  };
  const size_t num_pairs = static_cast<size_t>(shape.chunks) * shape.micro_batches;
  std::vector<int> backwards_left(num_pairs, 0);
  std::vector<char> alive(num_pairs, false);
  for (const TimedAction& t : actions) backwards_left[pair(t.action)] += t.action.pass != Pass::kForward;
  int live = 0, most = 0;
  for (const TimedAction& t : actions) {
    const size_t p = pair(t.action);
    if (t.action.pass == Pass::kForward) {
      live += !alive[p];
      alive[p] = true;
      most = std::max(most, live);
    } else {
      --backwards_left[p];
    }
    if (alive[p] && backwards_left[p] == 0) {
      alive[p] = false;
      --live;
    }
  }
  return most;
}

int peak_messages(const ScheduleShape& shape, const std::vector<std::vector<TimedAction>>& stages) {
  constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();
  std::vector<std::array<double, 2>> spans(num_tags(shape), {kUnset, kUnset});
  for (const auto& actions : stages) {
    for (const TimedAction& t : actions) {
      const auto product = produces(shape, t.stage, t.action);
      const auto need = needs(shape, t.stage, t.action);
      if (product && !product->local()) spans[product->tag][0] = t.end;
      if (need && !need->local()) spans[need->tag][1] = t.start;
    }
  }
  std::vector<std::pair<double, int>> changes;
  for (const auto& [sent, taken] : spans) {
    if (!(taken > sent)) continue;  // unset, or taken up at once
    changes.push_back({sent, 1});
    changes.push_back({taken, -1});
  }
  return most_at_once(changes);
}

}  // namespace

void validate(const Schedule& schedule) {
  validate_stages(schedule);
  run_in_order(schedule, [](int, const Action&, const std::optional<Message>&, double) { return 0.0; });
}

Simulation simulate(const Schedule& schedule, const PassCosts& costs) {
  const ScheduleShape& shape = schedule.shape;
  validate_stages(schedule);
  check_costs(shape, costs);
  std::vector<TimedAction> timed;
  std::vector<double> stage_free(shape.stages, 0);
  run_in_order(schedule, [&](int s, const Action& a, const std::optional<Message>& need, double produced) {
    const double arrived = need && !need->local() ? produced + costs.send : produced;
    const double start = std::max(stage_free[s], arrived);
    const double scale =
        costs.virtual_stage_scale.empty() ? 1.0 : costs.virtual_stage_scale[virtual_stage(shape, s, a.chunk)];
    const double end = start + scale * cost_of(costs, a.pass);
    timed.push_back({s, a, start, end});
    return stage_free[s] = end;
  });
  return summarize(shape, timed);
}

Simulation summarize(const ScheduleShape& shape, const std::vector<TimedAction>& actions) {
  Simulation result;
  result.stages.resize(shape.stages);
  result.summaries.resize(shape.stages);
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (const TimedAction& t : actions) {
    check<ScheduleError>(t.stage >= 0 && t.stage < shape.stages && inside(shape, t.action), "timed action ",
                         describe(shape, t.action), " on stage ", t.stage,
                         " is outside the schedule's shape");
    check<ScheduleError>(std::isfinite(t.start) && std::isfinite(t.end) && t.end >= t.start, "timed action ",
                         describe(shape, t.action), " on stage ", t.stage, " runs from ", t.start, " to ",
                         t.end);
    result.stages[t.stage].push_back(t);
    result.summaries[t.stage].busy += t.end - t.start;
    first = std::min(first, t.start);
    last = std::max(last, t.end);
  }
  result.total = actions.empty() ? 0 : last - first;
  double busy = 0;
  for (int s = 0; s < shape.stages; ++s) {
    std::stable_sort(result.stages[s].begin(), result.stages[s].end(),
                     [](const TimedAction& a, const TimedAction& b) { return a.start < b.start; });
    StageSummary& summary = result.summaries[s];
    if (result.total > 0) summary.bubble_fraction = 1 - summary.busy / result.total;
    summary.peak_live = peak_live(shape, result.stages[s]);
    busy += summary.busy;
  }
  if (result.total > 0) result.bubble_fraction = 1 - busy / (result.total * shape.stages);
  result.peak_messages_in_flight = peak_messages(shape, result.stages);
  return result;
}

}  // namespace trireme
