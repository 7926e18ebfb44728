// state.json of a checkpoint: where the run is, and what it was a run of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/hf_config.h"
#include "parallel/mesh.h"
#include "trainer/run_state.h"

namespace trireme {

struct SavedState {
  RunState run;
  uint64_t seed = 0, data_identity = 0;
  std::string optimizer;            // "adamw"
  std::vector<std::string> states;  // its state tensors
  MeshShape mesh;                   // for the reader of the file: no layout matters when loading
  int zero = 0;
};

std::string to_text(const SavedState& state);
// Throws FileError.
SavedState read_state(const std::filesystem::path& checkpoint);

// Throws ConfigError, with what to do, if the checkpoint is of a run with another seed or other data. A
// data_identity of 0 is not compared.
void check_same_run(const std::filesystem::path& checkpoint, const SavedState& saved, uint64_t seed,
                    uint64_t data_identity);

// Throws FileError unless config.json describes `model`, what affects no result (dropout, dtype, token ids)
// left out.
void check_same_model(const std::filesystem::path& checkpoint, const ModelConfig& model);

}  // namespace trireme
