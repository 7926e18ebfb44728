// The configuration of a run: one YAML file, with overrides from the command line. Each section is a struct; its
// describe() holds the only description of its fields (see config_fields.h), their units and ranges beside them.
//
// Relative paths count from the working directory. What fits together across fields is checked by validate()
// (trainer/validate.h), once the model and the number of ranks are known.
#pragma once

#include <boost/json.hpp>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/sample_source.h"
#include "model/transformer.h"
#include "tasks/masked_lm.h"
#include "tasks/task.h"
#include "tensor/gemm.h"
#include "trainer/config_fields.h"
#include "trainer/rank_cores.h"

namespace trireme {

enum class DeviceChoice : uint8_t { kAuto, kCpu, kCuda };
enum class ResumeMode : uint8_t { kAuto, kNever, kMust };
enum class LearningRateKind : uint8_t { kConstant, kLinear, kCosine, kWarmupStableDecay };
enum class CommBackend : uint8_t { kAuto, kMpi, kSelf };
enum class ProgressStyle : uint8_t { kAuto, kBar, kPlain, kNone };

struct RunSection {
  std::string name;  // default: the config file's name without .yaml
  std::string dir;   // default: runs/<name>
  int64_t seed = 1234;
  std::vector<int64_t> seeds;  // empty: the one run of `seed`
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
  PinMode pin = PinMode::kAuto;
  std::string tuning;  // empty: the compiled-in rules, or those that the checkpoint was trained with
  MatmulPrecision matmul_precision = MatmulPrecision::kF32;
  ResumeMode resume = ResumeMode::kAuto;
  int64_t log_every_steps = 10;

  void describe(FieldList& list);
  bool operator==(const RunSection&) const = default;
};

// Either a Hugging Face directory to start from (weights and config.json), or the keys of such a config.json written
// here, or both: then the keys here replace those of the file. Read by load_model_config() (trainer/model_section.h).
struct ModelSection {
  std::string from;                            // empty: none, weights are drawn from run.seed
  boost::json::object keys;                    // everything else under model:
  std::map<std::string, std::string> origins;  // key -> where it was given, "configs/x.yaml:7:3", for messages

  bool operator==(const ModelSection& other) const { return from == other.from && keys == other.keys; }
};

struct TokenizerSection {
  std::string path;  // empty: none; the data is prepared and the model's vocab_size is given

  void describe(FieldList& list);
  bool operator==(const TokenizerSection&) const = default;
};

struct DataSection {
  std::vector<DataSource> train;
  std::vector<std::string> validation;
  int64_t sequence_length = 1024;
  Packing packing = Packing::kDocuments;
  bool reset_positions = true;
  bool shuffle = true;
  int64_t validation_samples = 0;

  void describe(FieldList& list);
  bool operator==(const DataSection&) const = default;
};

// What a run is followed by: kValidationLoss or kTrainLoss, of which the lowest is the best, or a score of its task
// (Task::score), of which the highest is.
inline constexpr char kValidationLoss[] = "validation_loss", kTrainLoss[] = "train_loss";

struct EarlyStopping {
  std::string metric = kValidationLoss;
  int64_t patience = 0;
  double min_delta = 0;
  bool operator==(const EarlyStopping&) const = default;
};

// What is learned: a language model, or a task of labelled data (tasks/task.h).
struct TaskSection : TaskOptions {
  MaskedLmOptions masking;
  LossOptions loss;           // class_weights aside, which are those of `class_weights` once the labels are known
  std::string class_weights;  // empty: all 1; "balanced"; or "LABEL=WEIGHT,LABEL=WEIGHT"

  void describe(FieldList& list);
  bool operator==(const TaskSection&) const = default;
};

struct TrainSection {
  std::optional<int64_t> steps, tokens;  // exactly one of these three
  std::optional<double> epochs;
  int64_t global_batch = 32;
  int64_t micro_batch = 1;
  DType dtype = DType::kF32;
  bool fp8 = false;
  Recompute recompute = Recompute::kNone;
  std::string optimizer = "adamw";
  double learning_rate = 3e-4;
  double min_learning_rate = 0;
  LearningRateKind schedule = LearningRateKind::kCosine;
  int64_t warmup_steps = 0;
  double warmup_share = 0;
  double layer_decay = 1;
  double head_rate = 1;
  std::vector<std::string> freeze;
  int64_t decay_steps = 0;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double momentum = 0;
  bool nesterov = false;
  double clip_grad_norm = 1;
  int64_t max_skipped_steps = 10;
  int64_t evaluate_every_steps = 0;
  double evaluate_every_epochs = 0;
  EarlyStopping early_stopping;

  void describe(FieldList& list);
  bool operator==(const TrainSection&) const = default;
};

struct ParallelSection {
  int64_t tensor = 1;
  int64_t pipeline = 1;
  int64_t data = 0;
  int64_t context = 1;
  int64_t expert = 1;
  bool sequence = false;
  std::string schedule = "1f1b";
  int64_t chunks = 1;
  std::vector<int64_t> layers_per_stage;
  int64_t zero = 0;
  int64_t bucket_mb = 32;

  void describe(FieldList& list);
  bool operator==(const ParallelSection&) const = default;
};

struct CheckpointSection {
  int64_t every_steps = 0;
  double every_minutes = 30;
  int64_t keep_last = 2;
  bool keep_best = false;
  std::string best_metric = kValidationLoss;
  bool async = true;
  bool save_at_end = true;

  void describe(FieldList& list);
  bool operator==(const CheckpointSection&) const = default;
};

struct CommSection {
  double timeout_s = 60;
  CommBackend backend = CommBackend::kAuto;

  void describe(FieldList& list);
  bool operator==(const CommSection&) const = default;
};

struct LogSection {
  bool tensorboard = true;
  bool jsonl = true;
  ProgressStyle progress = ProgressStyle::kAuto;

  void describe(FieldList& list);
  bool operator==(const LogSection&) const = default;
};

struct SampleSection {
  std::vector<std::string> prompts;
  int64_t tokens = 64;
  int64_t every_steps = 0;
  double temperature = 0.8;

  void describe(FieldList& list);
  bool operator==(const SampleSection&) const = default;
};

struct ProfileSection {
  int64_t steps = 0;
  int64_t start_step = 0;

  void describe(FieldList& list);
  bool operator==(const ProfileSection&) const = default;
};

struct RunConfig {
  std::string source;  // the file, for messages; not compared
  RunSection run;
  ModelSection model;
  TokenizerSection tokenizer;
  DataSection data;
  TaskSection task;
  TrainSection train;
  ParallelSection parallel;
  CheckpointSection checkpoint;
  CommSection comm;
  LogSection log;
  SampleSection sample;
  ProfileSection profile;

  bool operator==(const RunConfig& other) const;
};

// The description of every field of `config` but the model's keys. Points into `config`.
FieldList fields_of(RunConfig& config);

// Reads a config file, then applies overrides, each "key.path=value" with the value as it would stand in the file:
// train.steps=100, parallel.layers_per_stage=[3,4], "data.train=[{path: a, weight: 2}]"; null takes a value back to its
// default; of several for one key the last counts. `model.KEY=value` sets a key of the model.
//
// Throws ConfigError, one line: "FILE:LINE:COLUMN: ..." or "command line: KEY=VALUE ...", for an unknown key (with the
// nearest known name), a duplicate key, a wrong type, a value out of its range, and a required key that is missing. An
// inline model (no model.from) is checked too; one with model.from when its config.json is read.
RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
RunConfig parse_run_config(std::string_view yaml, const std::string& source,
                           const std::vector<std::string>& overrides = {});

// The resolved config as YAML, every field with its value; parses back to an equal config. With comments, each field
// has its meaning, unit and range beside it.
std::string dump_run_config(const RunConfig& config, bool comments = true);

// JSON Schema (draft 2020-12) of the config file.
boost::json::object run_config_schema();

}  // namespace trireme
