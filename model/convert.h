// Model folders made of others: of files of torch.save safetensors, of another floating type, with the names of another time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace trireme {

struct ConvertOptions {
  std::optional<DType> dtype = {};  // of floating tensors; absent: each stays what it is. Others always do
  bool old_names = false;        // LayerNorm.gamma and .beta; else LayerNorm.weight and .bias
  uint64_t max_shard_bytes = 5'000'000'000;
  std::string part = "";         // see TorchFile::open()
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress = {};  // of the new weights; may be empty
};

struct Converted {
  size_t tensors = 0, renamed = 0;
  uint64_t num_bytes = 0;           // of the tensors
  std::vector<std::string> copied;  // other files, by name
};

// Makes the folder `to` of the folder `from`, or of a weight file with the folder that it stands in: model.safetensors
// (above max_shard_bytes in shards with an index), config.json byte for byte (with a new dtype, where it says another),
// and every other file but weights, hidden ones and what a checkpoint of ours has beside the model. Tensors keep names,
// bytes and shapes except for what the options say. A tensor is never whole in memory.
//
// All is written and synced as TO.tmp, which is then renamed, so `to` is there whole or not at all; after an error TO.tmp
// is removed. Throws FileError: as WeightSource::open(); `to` is there and not empty, or TO.tmp is; config.json is missing or
// no JSON object; a value that is finite and would not be in the new type, with its place; a type that does not convert (8
// bits); two tensors that would get one name; too little space or a write that fails.
Converted convert_model(const std::filesystem::path& from, const std::filesystem::path& to, const ConvertOptions& options);

}  // namespace trireme
