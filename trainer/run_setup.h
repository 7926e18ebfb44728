// What a run is about, found out before memory is taken for it: the model, its data, and how it is laid out.
#pragma once

#include <memory>

#include "data/sample_source.h"
#include "model/hf_config.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {

struct RunSetup {
  // Reads the model's config, the tokenizer, and the heads of the token files. Throws ConfigError or
  // FileError for all that config, files and layout can tell.
  RunSetup(const RunConfig& config, int world_size);

  ModelConfig model;  // with the tokenizer's token ids where it has none of its own
  std::unique_ptr<SampleSource> train, validation;  // validation: null if there is none
  RunPlan plan;
  int64_t total_steps = 0;

  // REQUIRES: there is a validation set.
  int64_t validation_samples(const RunConfig& config) const;
  // Of what the sample numbers mean: a resumed run must see the same data.
  uint64_t data_identity(const RunConfig& config) const;
};

}  // namespace trireme
