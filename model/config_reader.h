// Reads the keys of a config.json, and remembers which it knows: what every family's part of model/hf_config.h is made of.
#pragma once

#include <boost/json/object.hpp>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/hf_config.h"

namespace trireme {

constexpr int64_t kMaxVocabulary = int64_t{1} << 28, kMaxHidden = int64_t{1} << 20, kMaxLayers = 4096, kMaxHeads = 65536,
                  kMaxIntermediate = int64_t{1} << 24, kMaxPositions = 0x7fffffff, kMaxLabels = 1 << 20;
constexpr double kMaxProbability = 0.999;

class ConfigReader {
 public:
  ConfigReader(const boost::json::object& object, const std::string& where, const std::string& path)
      : o(object, where, path) {}

  // The first of several names for one thing that is there; all that are there must agree. None: the first.
  std::string_view pick(std::initializer_list<std::string_view> names);
  // A feature that is not implemented: the key may stand there only with a value that leaves it off.
  void off(std::string_view key, std::initializer_list<boost::json::value> harmless, std::string_view wanted);

  double probability(std::initializer_list<std::string_view> names, double otherwise) {
    return o.number_or(pick(names), otherwise, 0, kMaxProbability);
  }
  // hidden_act under `key`: one of `supported`.
  void activation(std::string_view key, const std::string& otherwise, const std::vector<std::string>& supported,
                  ModelConfig& c);
  // head_dim follows from the heads only where they divide the hidden size.
  void heads_divide(std::string_view heads, const ModelConfig& c, std::string_view hidden, std::string_view otherwise = "");

  JsonObject o;
  std::vector<std::string> known, carried;
};

// A family's keys of config.json. What all families have (model_type, vocab_size, initializer_range, tie_word_embeddings, ids
// of tokens, dtype) is read and written for it.
struct ConfigKeys {
  void (*read)(ConfigReader& r, ModelConfig& c);
  void (*write)(const ModelConfig& c, boost::json::object& o);
  void (*check)(const ModelConfig& c, const std::string& prefix);  // the rules between fields: throws ConfigError
  bool ties_by_default;
};

// Null for a model_type that no family has.
const ConfigKeys* config_keys(std::string_view model_type);

// "a, b, c"
std::string one_of(const std::vector<std::string>& names);
// Throws ConfigError "PREFIXa=5 does not divide PREFIXb=64; use a divisor of 64".
void check_divides(const std::string& prefix, const char* a, int64_t divisor, const char* b, int64_t total);

}  // namespace trireme
