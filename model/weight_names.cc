#include "model/weight_names.h"

namespace trireme {
namespace {

constexpr std::string_view kFamilyPrefixes[] = {"transformer.", "model.", "bert.", "roberta.", "distilbert.", "electra."};

// Endings that are the same tensor's. Only after "LayerNorm.", since other layers have a gamma that is no weight.
struct Ending {
  std::string_view now, old;
};
constexpr Ending kLayerNorm[] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
constexpr Ending kOutputBias[] = {{"cls.predictions.bias", "cls.predictions.decoder.bias"},
                                  {"lm_head.bias", "lm_head.decoder.bias"}};

// A whole name, or one that ends so after a dot.
bool ends_with_part(std::string_view name, std::string_view ending) {
  return name.ends_with(ending) && (name.size() == ending.size() || name[name.size() - ending.size() - 1] == '.');
}

std::string with_ending(std::string_view name, std::string_view from, std::string_view to) {
  return std::string(name.substr(0, name.size() - from.size())) + std::string(to);
}

}  // namespace

std::string with_new_ending(std::string_view name) {
  for (const auto& [now, old] : kLayerNorm)
    if (ends_with_part(name, old)) return with_ending(name, old, now);
  return std::string(name);
}

std::string with_old_ending(std::string_view name) {
  for (const auto& [now, old] : kLayerNorm)
    if (ends_with_part(name, now)) return with_ending(name, now, old);
  return std::string(name);
}

std::vector<std::string> names_in_files(const std::string& name) {
  std::vector<std::string> names = {name};
  for (const auto& [now, old] : kLayerNorm) {
    if (ends_with_part(name, now)) names.push_back(with_ending(name, now, old));
    if (ends_with_part(name, old)) names.push_back(with_ending(name, old, now));
  }
  for (const auto& [one, other] : kOutputBias) {
    if (name == one) names.emplace_back(other);
    if (name == other) names.emplace_back(one);
  }
  const size_t with_prefix = names.size();
  for (const std::string_view prefix : kFamilyPrefixes)
    for (size_t i = 0; i < with_prefix; ++i)
      if (names[i].starts_with(prefix)) names.push_back(names[i].substr(prefix.size()));
  return names;
}

}  // namespace trireme
