// What fits together in a run: the config, the model and the ranks it is started on. All of it is arithmetic,
// done before memory is taken or a collective entered.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/hf_config.h"
#include "trainer/run_config.h"

namespace trireme {

// What the config cannot know.
struct RunEnvironment {
  int world_size = 1;
  std::optional<int64_t> samples_per_epoch;  // of data.train, in sequences, once it is open
};

// The run's arithmetic, derived from a valid config.
struct RunPlan {
  int data_ranks = 1;                 // parallel.data, resolved
  int64_t micro_batches = 1;          // of one step on one data rank
  int64_t tokens_per_step = 0;        // over all ranks: global_batch * sequence_length
  int64_t tokens_per_micro_batch = 0;  // of one forward on one data rank
  std::optional<int64_t> total_steps;  // empty while epochs are asked for and samples_per_epoch is unknown
  double evaluate_every_steps = 0;    // train.evaluate_every_steps, or so many epochs in steps, which need not be whole; 0: at the end only
  int64_t warmup_steps = 0;           // train.warmup_steps, or that share of the run in steps
  int64_t decay_steps = 0;            // train.decay_steps with its 0 resolved; 0 while total_steps is unknown
  std::vector<int> layers_per_stage;  // one for each of pipeline * chunks virtual stages
  bool evaluates_after(int64_t step) const {
    const double every = evaluate_every_steps;
    return every > 0 && std::floor(static_cast<double>(step) / every) > std::floor(static_cast<double>(step - 1) / every);
  }
  std::vector<std::string> warnings;  // allowed, but likely not meant; one line each
};

// Throws ConfigError, one line, for what cannot run: "parallel.pipeline=5 does not divide
// model.num_hidden_layers=32; use a divisor of 32 or give parallel.layers_per_stage".
RunPlan validate(const RunConfig& config, const ModelConfig& model, const RunEnvironment& environment);

// Throws ConfigError naming the field and the path if model.from, tokenizer.path or a data file is not there.
void check_paths(const RunConfig& config);

// Neither the tokenizer's vocabulary nor that of the prepared data (TokenFile::vocabulary()) may be larger
// than the model's. Throws ConfigError naming both numbers. A larger model vocabulary is fine: its last rows
// are never seen.
void check_vocabulary(const RunConfig& config, const ModelConfig& model,
                      std::optional<int64_t> tokenizer_size, std::optional<int64_t> data_vocabulary);

// A few lines for people: layout, batch and steps. Printed by --dry-run and at the start of a run.
std::string describe_plan(const RunConfig& config, const RunPlan& plan);

}  // namespace trireme
