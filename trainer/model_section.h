// From the `model:` section of a run config to the model's shape.
#pragma once

#include "model/hf_config.h"
#include "trainer/run_config.h"

namespace trireme {

// The config.json of model.from, if given, with the section's own keys over it; keys of the section that
// neither the family reads nor Hugging Face writes are refused, those of the file are carried through. Throws
// ConfigError with the place where a bad key was given: "configs/x.yaml:7:16: model.num_attention_heads ...",
// and "model.from=PATH: ..." for a folder that cannot be read.
ModelConfig load_model_config(const RunConfig& config);

}  // namespace trireme
