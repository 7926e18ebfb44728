// Sets fields of a config from YAML nodes, by their descriptions.
#pragma once

#include <string>

#include "base/yaml.h"
#include "trainer/config_fields.h"

namespace trireme {

// Where a value was given, for messages.
struct ValueOrigin {
  std::string source;         // the file, or "command line"
  std::string override_text;  // "train.steps=x" for an override, empty for a file
  bool from_command_line() const { return !override_text.empty(); }
  // "f.yaml:3:5: train.steps" or "command line: train.steps=x".
  std::string subject(int line, int column, const std::string& path) const;
};

// Sets what `field` points to. Throws ConfigError for a wrong type or a value out of range:
//   f.yaml:3:5: train.steps is the string "many"; it must be an integer in [1, 1000000000000]
// null is not handled here but by reset_field(). On the command line a string needs no quotes, whatever it
// looks like.
void set_field(const ConfigField& field, const YamlNode& node, const ValueOrigin& origin);

// Copies the value of `other`, the same field of another config object.
void reset_field(const ConfigField& field, const ConfigField& other);

}  // namespace trireme
