// The table of model families: one line each.
#include "model/gpt2.h"
#include "model/llama.h"

namespace trireme {
namespace {

struct Entry {
  const char* model_type;
  const Family& (*family)();
};

constexpr Entry kFamilies[] = {
    {"gpt2", gpt2_family},
    {"llama", llama_family},
};

}  // namespace

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Entry& e : kFamilies) names.push_back(e.model_type);
  return names;
}

const Family& family_of(const ModelConfig& config) {
  std::string known;
  for (const Entry& e : kFamilies) {
    if (config.model_type == e.model_type) return e.family();
    known += (known.empty() ? "" : ", ") + std::string(e.model_type);
  }
  throw ConfigError("model.model_type=" + config.model_type + " is not a family of this build; use one of " + known);
}

}  // namespace trireme
