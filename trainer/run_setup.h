// What a run is about, found out before memory is taken for it: the model, its data, and how it is laid out.
#pragma once

#include <memory>
#include <optional>

#include "model/hf_config.h"
#include "tasks/batch_source.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {

struct RunSetup {
  // Reads the model's config, the tokenizer, and the heads of the token files or, of a task, its records.
  // Throws ConfigError or FileError for all that config, files and layout can tell.
  RunSetup(const RunConfig& config, int world_size);

  ModelConfig model;  // with the tokenizer's token ids where it has none of its own, and the task's head
  // Of a labelled task; else null.
  const Task* task = nullptr;
  TaskOptions task_options;
  LossOptions loss;
  std::unique_ptr<TaskData> train_data, validation_data;
  // validation: null if there is none
  std::unique_ptr<BatchSource> train, validation;
  RunPlan plan;
  int64_t total_steps = 0;
  std::vector<std::string> notes;  // about the data, for people

  // Tokens that attend to each other, on average.
  int64_t mean_length(const RunConfig& config) const;
  // REQUIRES: there is a validation set.
  int64_t validation_samples(const RunConfig& config) const;

 private:
  void open_tokens(const RunConfig& config, std::optional<int64_t> tokenizer_size);
  void open_masked(const RunConfig& config, const Tokenizer& tokenizer);
  void open_task(const RunConfig& config, const Tokenizer& tokenizer);
};

}  // namespace trireme
