#include <algorithm>
#include <cstdio>

#include "model/cost.h"
#include "trainer/model_section.h"
#include "trainer/planner.h"
#include "trainer/progress.h"
#include "trainer/train.h"
#include "trainer/validate.h"

namespace trireme {
namespace {

std::string printed(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

std::string mib(double bytes) { return printed("%.1f MiB", bytes / (1 << 20)); }
std::string ms(double seconds) { return printed(seconds < 0.1 ? "%.2f" : "%.0f", seconds * 1e3); }

std::string cell(const std::string& value, size_t width = 10) {
  return std::string(value.size() < width ? width - value.size() : 1, ' ') + value;
}

// step, compute, tensor, bubble, data, optimizer, tokens/s, MFU, memory
std::string heading() {
  std::string line;
  for (const char* name : {"step ms", "compute", "tensor", "bubble", "data", "optimizer", "tokens/s", "MFU", "GiB"})
    line += cell(name);
  return line;
}
std::string row_of(const Prediction& p) {
  const StepPrediction& s = p.step;
  std::string line;
  for (double seconds : {s.total_s, s.compute_s, s.tensor_s, s.bubble_s, s.data_s, s.optimizer_s}) line += cell(ms(seconds));
  return line + cell(format_count(s.tokens_per_s)) + cell(printed("%.1f %%", 100 * s.mfu)) +
         cell(printed("%.2f", p.memory.total() / (1 << 30)));
}

RunEnvironment environment_of(const RunConfig& config, int world_size) {
  RunEnvironment environment;
  environment.world_size = world_size;
  if (config.train.epochs) environment.samples_per_epoch = 1;  // counted in samples of one epoch each
  return environment;
}

// A valid layout of `ranks` ranks for the run, whatever it names itself.
std::string suggestions(const RunConfig& config, const ModelConfig& model, const DryRunOptions& options, int world_size,
                        size_t keep) {
  const PlannerOutcome found =
      plan_layouts(config, model, options.rates, {world_size, options.ranks_per_host, options.memory_bytes, keep});
  std::string out = text("layouts for ", world_size, world_size == 1 ? " rank" : " ranks", ", the fastest of ",
                         found.num_valid - found.num_over_memory, " that fit (", found.num_over_memory, " need more than ",
                         mib(options.memory_bytes), " a rank):\n");
  if (found.best.empty())
    return out + "  none; use more ranks, or give --memory-gb if the hosts have more\n";
  out += heading() + "\n";
  for (const PlannedLayout& l : found.best) out += row_of(l.prediction) + "  " + l.overrides() + "\n";
  return out;
}

std::string one_world(const RunConfig& config, const ModelConfig& model, const DryRunOptions& options) {
  const RunPlan plan = validate(config, model, environment_of(config, options.world_sizes[0]));
  const Prediction p = predict(config, model, plan, options.rates, options.ranks_per_host);
  const ParameterCounts n = count_parameters(model);
  std::string out = describe_plan(config, plan);
  out += text("model: ", model.model_type, ", ", n.total(), " parameters (embedding ", n.embedding, ", layers ", n.layers,
              ", output ", n.head, ")\n");
  out += text("work: ", training_flops_per_token(model, config.data.sequence_length) *
                            static_cast<double>(plan.tokens_per_step) / 1e12, " TFLOP a step over all ranks\n");
  out += text("device of a rank: ", options.device, "\n");
  out += text("memory of the largest rank, counted: weights ", mib(p.memory.weights), ", gradients ", mib(p.memory.gradients),
              ", optimizer ", mib(p.memory.optimizer), ", activations ", mib(p.memory.activations), "; together ",
              mib(p.memory.total()), "\n");
  out += text("\npredicted, ", options.ranks_per_host, " ranks a host, rates ", options.rates_source, ":\n", heading(), "\n",
              row_of(p), "\n\n", prediction_formulas(config, options.rates), "\n");
  return out + suggestions(config, model, options, options.world_sizes[0], 5);
}

std::string many_worlds(const RunConfig& config, const ModelConfig& model, const DryRunOptions& options) {
  std::string out = text("predicted, ", options.ranks_per_host, " ranks a host, rates ", options.rates_source, ":\n   ranks",
                         heading(), "\n");
  for (int world_size : options.world_sizes) {
    out += cell(text(world_size), 8);
    try {
      const RunPlan plan = validate(config, model, environment_of(config, world_size));
      out += row_of(predict(config, model, plan, options.rates, options.ranks_per_host)) + "\n";
    } catch (const ConfigError& e) {
      out += text("  ", e.what(), "\n");
    }
  }
  out += "\n" + prediction_formulas(config, options.rates) + "\n";
  for (int world_size : options.world_sizes) out += suggestions(config, model, options, world_size, 1);
  return out;
}

}  // namespace

std::string dry_run(const RunConfig& config, const DryRunOptions& options) {
  TRIREME_ASSERT(!options.world_sizes.empty() && options.ranks_per_host >= 1);
  const ModelConfig model = load_model_config(config);
  return options.world_sizes.size() == 1 ? one_world(config, model, options) : many_worlds(config, model, options);
}

}  // namespace trireme
