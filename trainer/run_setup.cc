#include "trainer/run_setup.h"

#include <algorithm>

#include "data/tokenizer_files.h"
#include "tasks/example_batches.h"
#include "trainer/batch.h"
#include "trainer/class_weights.h"
#include "trainer/model_section.h"

namespace trireme {
namespace {

// The labels of the model go first: it may have been trained with them. Without names of their own
// ("LABEL_0") they are those of the data.
std::vector<std::string> labels_for(const HeadSpec& given, const HeadSpec& found, const std::string& model) {
  if (given.kind != found.kind || given.problem != found.problem) return found.labels;
  const auto holds = [&](const std::string& label) {
    return std::find(given.labels.begin(), given.labels.end(), label) != given.labels.end();
  };
  const auto odd = std::find_if_not(found.labels.begin(), found.labels.end(), holds);
  if (odd == found.labels.end()) return given.labels;
  for (size_t i = 0; i < given.labels.size(); ++i)
    check<ConfigError>(
        given.labels[i] == text("LABEL_", i), "data.train has the label \"", *odd, "\", which ", model,
        " was not trained with; name all labels in task.labels, in the order of its head's outputs");
  return found.labels;
}

int64_t row_multiple(const RunConfig& config) {
  return config.parallel.sequence ? config.parallel.tensor : 1;
}

}  // namespace

RunSetup::RunSetup(const RunConfig& config, int world_size) {
  check_paths(config);
  check<ConfigError>(
      config.train.early_stopping.patience == 0 || !config.checkpoint.keep_best ||
          config.train.early_stopping.metric == config.checkpoint.best_metric,
      "checkpoint.best_metric and train.early_stopping.metric differ; a run follows one metric, give "
      "both the same");
  model = load_model_config(config);
  std::unique_ptr<Tokenizer> tokenizer;
  const bool decoder = config.task.kind == kLanguageModelTask;
  const std::string from =
      config.tokenizer.path.empty() && !decoder ? config.model.from : config.tokenizer.path;
  check<ConfigError>(!from.empty() || decoder, "task.kind=", config.task.kind,
                     " needs a tokenizer; give tokenizer.path, or a model.from that has one");
  if (!from.empty()) {
    // What the model will be saved with: a reader of the checkpoint must know which tokens begin and end a
    // text.
    tokenizer = std::make_unique<Tokenizer>(load_tokenizer(from));
    if (decoder) {
      if (!model.bos_token_id && tokenizer->bos_id()) model.bos_token_id = *tokenizer->bos_id();
      if (model.eos_token_ids.empty() && tokenizer->eos_id()) model.eos_token_ids = {*tokenizer->eos_id()};
    }
  }
  // Before the data is read, which takes longer.
  validate(config, model, {world_size, std::nullopt});
  const auto tokenizer_size = tokenizer ? std::optional<int64_t>(tokenizer->vocab_size()) : std::nullopt;
  if (decoder) {
    open_tokens(config, tokenizer_size);
  } else {
    check_vocabulary(config, model, tokenizer_size, std::nullopt);
    if (config.task.kind == kMaskedLanguageModelTask)
      open_masked(config, *tokenizer);
    else
      open_task(config, *tokenizer);
  }
  plan = validate(config, model, {world_size, train->samples_per_epoch()});
  total_steps = plan.total_steps.value();
}

void RunSetup::open_tokens(const RunConfig& config, std::optional<int64_t> tokenizer_size) {
  SampleOptions options{config.data.sequence_length, config.data.packing, config.data.reset_positions,
                        config.data.shuffle, static_cast<uint64_t>(config.run.seed)};
  const auto open = [&](const std::vector<SampleSource::File>& files) {
    auto batches = std::make_unique<TokenBatches>(files, options);
    check_vocabulary(config, model, tokenizer_size, batches->vocabulary());
    return batches;
  };
  std::vector<SampleSource::File> files;
  for (const DataSource& s : config.data.train) files.push_back({s.path, s.weight});
  train = open(files);
  if (config.data.validation.empty()) return;
  files.clear();
  for (const std::string& path : config.data.validation) files.push_back({path, 1});
  options.shuffle = false;
  validation = open(files);
}

void RunSetup::open_masked(const RunConfig& config, const Tokenizer& tokenizer) {
  model.head.kind = config.task.masking.next_sentence ? HeadKind::kPretraining : HeadKind::kLanguageModel;
  MaskedLmBatches::Options options{config.task.masking, config.data.sequence_length, config.data.shuffle,
                                   static_cast<uint64_t>(config.run.seed), row_multiple(config)};
  std::vector<MaskedLmBatches::File> files;
  for (const DataSource& s : config.data.train) files.push_back({s.path, s.weight});
  train = std::make_unique<MaskedLmBatches>(files, tokenizer, options);
  if (config.data.validation.empty()) return;
  files.clear();
  for (const std::string& path : config.data.validation) files.push_back({path, 1});
  options.shuffle = false;
  validation = std::make_unique<MaskedLmBatches>(files, tokenizer, options);
}

void RunSetup::open_task(const RunConfig& config, const Tokenizer& tokenizer) {
  task = &find_task(config.task.kind);
  task_options = config.task;
  task_options.max_length = config.data.sequence_length;
  std::vector<std::string> paths;
  for (const DataSource& s : config.data.train) {
    check<ConfigError>(s.weight == 1, "data.train: ", s.path, " has weight ", s.weight,
                       "; labelled files have none");
    paths.push_back(s.path);
  }
  const auto read = [&](const std::vector<std::string>& files) {
    auto data = task->read(files, task_options, tokenizer, true);
    notes.insert(notes.end(), data->notes.begin(), data->notes.end());
    return data;
  };
  train_data = read(paths);
  HeadSpec head = task->head(*train_data, task_options);
  if (task_options.labels.empty()) head.labels = labels_for(model.head, head, config.model.from);
  model.head = head;
  task->set_labels(*train_data, head, task_options);
  loss = config.task.loss;
  loss.class_weights = class_weights(config.task.class_weights, head, *train_data);
  ExampleBatchOptions options;
  options.head = head.kind;
  options.problem = head.problem;
  options.outputs = static_cast<int64_t>(head.labels.size());
  options.shuffle = config.data.shuffle;
  options.seed = static_cast<uint64_t>(config.run.seed);
  options.twice = loss.r_drop > 0;
  options.row_multiple = row_multiple(config);
  options.pad_id = tokenizer.pad_id().value_or(0);
  train = std::make_unique<ExampleBatches>(*train_data, options);
  if (config.data.validation.empty()) return;
  validation_data = read(config.data.validation);
  task->set_labels(*validation_data, head, task_options);
  options.shuffle = options.twice = false;
  validation = std::make_unique<ExampleBatches>(*validation_data, options);
}

int64_t RunSetup::mean_length(const RunConfig& config) const {
  if (!train_data) return config.data.sequence_length;
  int64_t segments = 0;
  for (const TaskSample& s : train_data->samples) segments += static_cast<int64_t>(s.segments.size());
  return std::max<int64_t>(1, train_data->num_tokens() / segments);
}

int64_t RunSetup::validation_samples(const RunConfig& config) const {
  const int64_t all = validation->samples_per_epoch();
  return config.data.validation_samples ? std::min(config.data.validation_samples, all) : all;
}

}  // namespace trireme
