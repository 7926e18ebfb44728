// A finetuned model as `trireme eval` and `trireme predict` use it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "model/sharded_model.h"
#include "tasks/example_batches.h"
#include "trainer/run_config.h"
#include "trainer/task_evaluation.h"

namespace trireme {

// The options that both commands have beside their own.
inline constexpr const char* kTrainedTaskOptions[] = {"model", "tensor", "pipeline", "data-parallel", "threads", "dtype", "batch"};
extern const char kTrainedTaskHelp[];

class TrainedTask {
 public:
  // --model names a Hugging Face directory or a checkpoint. What the task is comes from the checkpoint's run.yaml; else from
  // config.json's architectures; the words of the command line ("task.label_column=2") go over both. Collective.
  TrainedTask(Communicator& world, const Arguments& args);

  const RunConfig& config() const { return config_; }
  const ModelConfig& model_config() const { return model_config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Task& task() const { return *task_; }  // REQUIRES: is_labelled_task(config().task.kind)
  const TaskOptions& options() const { return options_; }
  const Mesh& mesh() const { return *mesh_; }
  const ShardedModel& model() const { return *model_; }
  BatchPlan plan(int64_t tokens_a_sample) const;

  // Outputs for all samples, on every rank; the loss where the data has labels. Collective.
  TaskEvaluation outputs(const TaskData& data, const ActivityFn& activity) const;

 private:
  Communicator& world_;
  RunConfig config_;
  ModelConfig model_config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  const Task* task_ = nullptr;
  TaskOptions options_;
  int64_t batch_ = 0;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<ShardedModel> model_;
};

}  // namespace trireme
