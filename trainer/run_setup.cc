#include "trainer/run_setup.h"

#include <algorithm>
#include <span>

#include "base/files.h"
#include "data/tokenizer_files.h"
#include "trainer/model_section.h"

namespace trireme {

RunSetup::RunSetup(const RunConfig& config, int world_size) {
  check_paths(config);
  check<ConfigError>(
      config.train.early_stopping.patience == 0 || !config.checkpoint.keep_best ||
          config.train.early_stopping.metric == config.checkpoint.best_metric,
      "checkpoint.best_metric and train.early_stopping.metric differ; a run follows one metric, give "
      "both the same");
  model = load_model_config(config);
  std::optional<int64_t> tokenizer_size;
  if (!config.tokenizer.path.empty()) {
    // What the model will be saved with: a reader of the checkpoint must know which tokens begin and end a
    // text.
    const Tokenizer tokenizer = load_tokenizer(config.tokenizer.path);
    tokenizer_size = tokenizer.vocab_size();
    if (!model.bos_token_id && tokenizer.bos_id()) model.bos_token_id = *tokenizer.bos_id();
    if (model.eos_token_ids.empty() && tokenizer.eos_id()) model.eos_token_ids = {*tokenizer.eos_id()};
  }
  SampleOptions options{config.data.sequence_length, config.data.packing, config.data.reset_positions,
                        config.data.shuffle, static_cast<uint64_t>(config.run.seed)};
  std::vector<SampleSource::File> files;
  for (const DataSource& s : config.data.train) files.push_back({s.path, s.weight});
  train = std::make_unique<SampleSource>(files, options);
  check_vocabulary(config, model, tokenizer_size, train->vocabulary());
  if (!config.data.validation.empty()) {
    files.clear();
    for (const std::string& path : config.data.validation) files.push_back({path, 1});
    options.shuffle = false;
    validation = std::make_unique<SampleSource>(files, options);
    check_vocabulary(config, model, tokenizer_size, validation->vocabulary());
  }
  plan = validate(config, model, {world_size, train->samples_per_epoch()});
  total_steps = plan.total_steps.value();
}

int64_t RunSetup::validation_samples(const RunConfig& config) const {
  const int64_t all = validation->samples_per_epoch();
  return config.data.validation_samples ? std::min(config.data.validation_samples, all) : all;
}

uint64_t RunSetup::data_identity(const RunConfig& config) const {
  std::string words = text(config.data.sequence_length, ' ', static_cast<int>(config.data.packing), ' ',
                           config.data.shuffle, ' ', config.data.reset_positions);
  for (size_t i = 0; i < config.data.train.size(); ++i)
    words += text(' ', train->files()[i].content_hash(), '*', config.data.train[i].weight);
  return hash_bytes(std::as_bytes(std::span(words.data(), words.size()))).low;
}

}  // namespace trireme
