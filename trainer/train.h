// A training run from its config to its end.
#pragma once

#include <functional>

#include "comm/communicator.h"
#include "model/sharded_model.h"
#include "trainer/machine_rates.h"
#include "trainer/run_config.h"

namespace trireme {

// Exit codes of a run, as the command line gives them.
constexpr int kExitDone = 0;
constexpr int kExitValidationFailed = 17;  // too many steps with NaN or Inf
constexpr int kExitSaved = 75;             // stopped by a signal, saved, can go on

// What the run lets its caller do, since the trainer knows no watchdog and no inference.
struct TrainHooks {
  std::function<void(const std::string& what)> activity;  // what this rank does from now on
  std::function<void(int64_t step)> step;
  // Text by the model as it is, for each of sample.prompts, on rank 0; all ranks call it.
  std::function<std::vector<std::string>(const ShardedModel& model)> samples;
  // The scores of the run's task when it is done, on every rank: of the best evaluation with checkpoint.keep_best, else of the
  // last. Not called without an evaluation.
  std::function<void(const std::vector<std::pair<std::string, double>>& scores)> scores;
  // True once SIGUSR1 or SIGTERM asked this process to save and end.
  std::function<bool()> stop_requested;
};

// Trains until train.steps (tokens, epochs) are done, early stopping, or a signal. Collective over `world`; every rank has
// the same config. Returns an exit code. Throws ConfigError for what the config, files and layout can tell before memory
// is taken; FileError and CommError as they come.
int train(Communicator& world, const RunConfig& config, const TrainHooks& hooks);

struct DryRunOptions {
  std::vector<int> world_sizes = {1};
  MachineRates rates;
  std::string rates_source;  // "measured now", for the reader
  int ranks_per_host = 1;
  std::string device = "cpu";  // of a rank, for the reader
  double memory_bytes = 0;   // of a rank, for the layouts that are suggested; 0: no limit
};

// What `trireme train --dry-run` prints. For one number of ranks: layout, batches, memory, the predicted step with the
// formulas it comes from, and the best layouts found. For several: a row of the prediction each, or why the layout does
// not fit, and the best layout of each. Takes no memory for the model, and one process, whatever the layout.
std::string dry_run(const RunConfig& config, const DryRunOptions& options);

}  // namespace trireme
