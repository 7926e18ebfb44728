// Writes a model folder in the Hugging Face form, which `transformers` and model/weight_files.h read.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "model/safetensors.h"

namespace trireme {

struct WrittenFile {
  std::string name;  // in the folder
  uint64_t num_bytes = 0;
  FileHash hash;
};

struct HfDirectory {
  boost::json::object config;             // config.json, e.g. of ModelConfig::to_json()
  boost::json::object generation_config;  // generation_config.json
  std::vector<SafetensorsSpec> tensors;
  uint64_t max_shard_bytes = 5'000'000'000;  // of data; one larger tensor makes a shard of its own
};

// Gives the bytes of one tensor, in order, in as many calls of `write` as it likes.
using TensorProducer =
    std::function<void(const SafetensorsSpec& tensor, const std::function<void(std::span<const std::byte>)>& write)>;

// Makes `folder` if need be and writes config.json, generation_config.json and model.safetensors; above max_shard_bytes
// model-00001-of-0000N.safetensors ... and model.safetensors.index.json. Tensors are asked for once each, wider types
// first, otherwise in their order. Each file gets its name only once it is complete and synced, config.json last, and the
// folder is synced at the end. Throws FileError: the folder already holds weights, the disk has too little space, a write
// fails; and passes on what `produce` throws. Then the files written so far are removed again.
// Returns the files with sizes and hashes, in the order they were written.
std::vector<WrittenFile> write_hf_directory(const std::filesystem::path& folder, const HfDirectory& model,
                                            const TensorProducer& produce);

// The weights alone, into a folder that is there and has none, each file complete and synced before it gets its name. They
// are added to `written`, which after an error holds those to be removed. Throws as above.
void write_weights(const std::filesystem::path& folder, const std::vector<SafetensorsSpec>& tensors,
                   uint64_t max_shard_bytes, const TensorProducer& produce, std::vector<WrittenFile>& written);

// How the tensors are cut into shards, by number in `tensors`.
std::vector<std::vector<size_t>> plan_shards(const std::vector<SafetensorsSpec>& tensors, uint64_t max_shard_bytes);

}  // namespace trireme
