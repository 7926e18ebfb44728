#include "trainer/model_section.h"

#include <string_view>

#include "base/json.h"

namespace trireme {
namespace {

// ModelConfig names the file and the key of what is wrong ("FILE: model.KEY ..."). Where the key was given in
// the run config, its line takes the file's place.
std::string with_origin(const RunConfig& config, const std::string& message) {
  const std::string prefix = config.source + ": model.";
  if (!message.starts_with(prefix)) return message;
  const std::string_view rest = std::string_view(message).substr(prefix.size());
  const std::string key(rest.substr(0, rest.find_first_of(" =.[:")));
  const auto origin = config.model.origins.find(key);
  if (origin == config.model.origins.end()) return message;
  return origin->second + ": model." + std::string(rest);
}

ModelConfig read(const RunConfig& config, const boost::json::object& keys, UnknownKeys unknown) {
  try {
    return ModelConfig::from_json(keys, config.source, unknown, "model");
  } catch (const ConfigError& e) {
    throw ConfigError(with_origin(config, e.what()));
  }
}

}  // namespace

ModelConfig load_model_config(const RunConfig& config) {
  const ModelSection& model = config.model;
  if (model.from.empty()) return read(config, model.keys, UnknownKeys::kRefuse);

  const std::filesystem::path path = std::filesystem::path(model.from) / "config.json";
  boost::json::object merged;
  try {
    const boost::json::value file = read_json_file(path);
    merged = JsonObject(file, path.string()).raw();
  } catch (const FileError& e) {
    throw ConfigError("model.from=" + model.from + ": " + e.what());
  }
  // Only the section's own keys are refused when unknown: those of the file that no one reads are left out of
  // this check.
  boost::json::object checked = merged;
  for (const auto& item : ModelConfig::from_json(merged, path.string(), UnknownKeys::kKeep).extra)
    checked.erase(item.key());
  for (const auto& item : model.keys) merged[item.key()] = checked[item.key()] = item.value();
  read(config, checked, UnknownKeys::kRefuse);
  return read(config, merged, UnknownKeys::kKeep);
}

}  // namespace trireme
