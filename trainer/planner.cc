#include "trainer/planner.h"

#include <algorithm>
#include <cmath>

namespace trireme {
namespace {

constexpr const char* kRecomputeNames[] = {"none", "selective", "full"};

// Layouts of `world` ranks to try, most of them invalid: validate() decides.
template <class Fn>
void for_each_layout(const RunConfig& base, const ModelConfig& model, int world, const Fn& fn) {
  RunConfig c = base;
  c.parallel.layers_per_stage.clear();
  c.parallel.data = 0;
  for (int64_t tp = 1; tp <= std::min<int64_t>(world, model.num_attention_heads); ++tp)
    for (int64_t pp = 1; tp * pp <= world && pp <= model.num_hidden_layers; ++pp) {
      if (world % (tp * pp) != 0) continue;
      const int64_t dp = world / (tp * pp);
      c.parallel.tensor = tp;
      c.parallel.pipeline = pp;
      for (int64_t micro = 1; micro * dp <= base.train.global_batch; micro *= 2) {
        c.train.micro_batch = micro;
        for (const bool sequence : {false, true}) {
          if (sequence && tp == 1) continue;
          c.parallel.sequence = sequence;
          for (const char* schedule : {"1f1b", "zb-h1", "interleaved"}) {
            if (pp == 1 && schedule != std::string("1f1b")) continue;
            c.parallel.schedule = schedule;
            c.parallel.chunks = schedule == std::string("interleaved") ? 2 : 1;
            for (Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
              c.train.recompute = recompute;
              for (int64_t zero = 0; zero <= (dp > 1 ? 2 : 0); ++zero) {
                c.parallel.zero = zero;
                fn(c);
              }
            }
          }
        }
      }
    }
}

bool before(const PlannedLayout& a, const PlannedLayout& b) {
  // In steps of 1 %, so that the order is one.
  const auto key = [](const PlannedLayout& l) { return std::floor(std::log(l.prediction.step.total_s) / std::log(1.01)); };
  if (key(a) != key(b)) return key(a) < key(b);
  return a.prediction.memory.total() < b.prediction.memory.total();
}

}  // namespace

std::string PlannedLayout::overrides() const {
  std::string out = text("parallel.tensor=", parallel.tensor, " parallel.pipeline=", parallel.pipeline);
  if (parallel.pipeline > 1) out += " parallel.schedule=" + parallel.schedule;
  if (parallel.chunks > 1) out += text(" parallel.chunks=", parallel.chunks);
  if (parallel.sequence) out += " parallel.sequence=true";
  return out + text(" parallel.zero=", parallel.zero, " train.micro_batch=", micro_batch, " train.recompute=",
                    kRecomputeNames[static_cast<int>(recompute)]);
}

PlannerOutcome plan_layouts(const RunConfig& config, const ModelConfig& model, const MachineRates& rates,
                            const PlannerOptions& options) {
  PlannerOutcome out;
  RunEnvironment environment;
  environment.world_size = options.world_size;
  environment.samples_per_epoch = 1 << 20;  // no layout is invalid for its length
  for_each_layout(config, model, options.world_size, [&](const RunConfig& c) {
    RunPlan plan;
    try {
      plan = validate(c, model, environment);
    } catch (const ConfigError&) {
      return;
    }
    if (plan.micro_batches < c.parallel.pipeline) return;  // stages that mostly wait
    ++out.num_valid;
    PlannedLayout layout{c.parallel, c.train.micro_batch, c.train.recompute, plan.data_ranks,
                         predict(c, model, plan, rates, options.ranks_per_host)};
    if (options.memory_bytes > 0 && layout.prediction.memory.total() > options.memory_bytes) {
      ++out.num_over_memory;
      return;
    }
    const auto at = std::upper_bound(out.best.begin(), out.best.end(), layout, before);
    out.best.insert(at, std::move(layout));
    if (out.best.size() > options.keep) out.best.pop_back();
  });
  return out;
}

}  // namespace trireme
