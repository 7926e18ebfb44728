#include "model/hf_directory.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <unordered_set>

#include "base/json.h"

namespace trireme {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

std::string shard_name(size_t number, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number + 1, count);
  return name;
}

// A reader could take old weights for ours, or find both.
void check_has_no_weights(const fs::path& folder) {
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    const bool weights = name.starts_with("model") && (name.ends_with(".safetensors") || name.ends_with(".index.json"));
    check<FileError>(!weights && name != "config.json", folder.string(), ": already holds ", name,
                     "; choose an empty folder, or remove the model from this one");
  }
}

WrittenFile write_shard(const fs::path& folder, const std::string& name, std::vector<SafetensorsSpec> tensors,
                        const TensorProducer& produce) {
  const fs::path path = folder / name, temporary = folder / (name + ".tmp");
  try {
    SafetensorsWriter writer(temporary, tensors);
    for (const SafetensorsSpec& tensor : tensors)
      produce(tensor, [&](std::span<const std::byte> bytes) { writer.write(tensor.name, bytes); });
    WrittenFile written{name, writer.file_bytes(), writer.finish()};
    fs::rename(temporary, path);
    return written;
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

WrittenFile write_json(const fs::path& folder, const std::string& name, const json::object& object) {
  const std::string contents = to_json(object, JsonLayout::kIndented);
  write_file_atomically(folder / name, contents);
  return {name, contents.size(), hash_bytes(std::as_bytes(std::span(contents.data(), contents.size())))};
}

void remove_all(const fs::path& folder, const std::vector<WrittenFile>& written) {
  std::error_code ignored;
  for (const WrittenFile& file : written) fs::remove(folder / file.name, ignored);
}

}  // namespace

std::vector<std::vector<size_t>> plan_shards(const std::vector<SafetensorsSpec>& tensors, uint64_t max_shard_bytes) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // So that each is aligned to its elements.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return tensors[a].element_bytes() > tensors[b].element_bytes(); });
  std::vector<std::vector<size_t>> shards(1);
  uint64_t filled = 0;
  for (const size_t i : order) {
    const uint64_t num_bytes = tensors[i].num_bytes();
    if (!shards.back().empty() && num_bytes > max_shard_bytes - std::min(filled, max_shard_bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(i);
    filled += num_bytes;
  }
  return shards;
}

void write_weights(const fs::path& folder, const std::vector<SafetensorsSpec>& tensors, uint64_t max_shard_bytes,
                   const TensorProducer& produce, std::vector<WrittenFile>& written) {
  uint64_t total = 0;
  std::unordered_set<std::string> names;
  for (const SafetensorsSpec& t : tensors) {
    check<FileError>(!__builtin_add_overflow(total, t.num_bytes(), &total), folder.string(),
                     ": the weights have more bytes than 64 bits can count");
    check<FileError>(names.insert(t.name).second, folder.string(), ": two tensors are called ", t.name);
  }
  const uint64_t space = free_space(folder);
  check<FileError>(total <= space, folder.string(), ": the weights take ", total, " bytes, the disk has ", space, " left");

  const auto shards = plan_shards(tensors, max_shard_bytes);
  json::object weight_map;
  for (size_t s = 0; s < shards.size(); ++s) {
    std::vector<SafetensorsSpec> of_shard;
    for (const size_t i : shards[s]) {
      of_shard.push_back(tensors[i]);
      weight_map[tensors[i].name] = shard_name(s, shards.size());
    }
    written.push_back(write_shard(folder, shard_name(s, shards.size()), std::move(of_shard), produce));
  }
  if (shards.size() > 1) {
    json::object index;
    index["metadata"] = json::object{{"total_size", total}};
    index["weight_map"] = std::move(weight_map);
    written.push_back(write_json(folder, "model.safetensors.index.json", index));
  }
}

std::vector<WrittenFile> write_hf_directory(const fs::path& folder, const HfDirectory& model,
                                            const TensorProducer& produce) {
  std::vector<WrittenFile> written;
  try {
    fs::create_directories(folder);
    check_has_no_weights(folder);
    write_weights(folder, model.tensors, model.max_shard_bytes, produce, written);
    written.push_back(write_json(folder, "generation_config.json", model.generation_config));
    written.push_back(write_json(folder, "config.json", model.config));
    fsync_directory(folder);
  } catch (const fs::filesystem_error& e) {
    remove_all(folder, written);
    throw FileError(text(folder.string(), ": ", e.code().message()));
  } catch (...) {
    remove_all(folder, written);
    throw;
  }
  return written;
}

}  // namespace trireme
