// The table of model families: one line each.
#include "model/bert.h"
#include "model/config_reader.h"
#include "model/distilbert.h"
#include "model/gpt2.h"
#include "model/llama.h"
#include "model/roberta.h"

namespace trireme {
namespace {

struct Entry {
  const char* model_type;
  const Family& (*family)();
  const ConfigKeys& (*keys)();
  bool decoder;
};

constexpr Entry kFamilies[] = {
    {"gpt2", gpt2_family, gpt2_config_keys, true},
    {"llama", llama_family, llama_config_keys, true},
    {"bert", bert_family, bert_config_keys, false},
    {"roberta", roberta_family, roberta_config_keys, false},
    {"distilbert", distilbert_family, distilbert_config_keys, false},
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

const ConfigKeys* config_keys(std::string_view model_type) {
  for (const Entry& e : kFamilies)
    if (model_type == e.model_type) return &e.keys();
  return nullptr;
}

const Family& family_of(const ModelConfig& config) { return entry_of(config).family(); }
bool is_decoder(const ModelConfig& config) { return entry_of(config).decoder; }

}  // namespace trireme
