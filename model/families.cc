// The table of model families: one line each.
#include "model/gpt2.h"
#include "model/llama.h"

namespace trireme {
namespace {

struct Entry {
  const char* model_type;
  const Family& (*family)();
  bool decoder;
};

constexpr Entry kFamilies[] = {
    {"gpt2", gpt2_family, true},
    {"llama", llama_family, true},
};

const Entry& entry_of(const ModelConfig& config) {
  std::string known;
  for (const Entry& e : kFamilies) {
    if (config.model_type == e.model_type) return e;
    known += (known.empty() ? "" : ", ") + std::string(e.model_type);
  }
  throw ConfigError("model.model_type=" + config.model_type + " is not a family of this build; use one of " + known);
}

}  // namespace

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Entry& e : kFamilies) names.push_back(e.model_type);
  return names;
}

const Family& family_of(const ModelConfig& config) { return entry_of(config).family(); }
bool is_decoder(const ModelConfig& config) { return entry_of(config).decoder; }

}  // namespace trireme
