// The words after a subcommand: options "--name value" or "--name=value", switches "--name", and the rest in
// order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace trireme {

class Arguments {
 public:
  // `options` take a value, `switches` none; both without the dashes. "--" ends them. Throws ConfigError for
  // one that is not known (with the nearest name) or lacks its value.
  Arguments(const std::vector<std::string>& words, const std::vector<std::string>& options,
            const std::vector<std::string>& switches);

  const std::vector<std::string>& rest() const { return rest_; }
  bool has(const std::string& name) const;
  std::vector<std::string> all(const std::string& name) const;  // of an option given several times
  std::optional<std::string> value(const std::string& name) const;  // the last one
  std::string required(const std::string& name) const;
  // Throw ConfigError "--name=x: ..." unless the value is such a number in [min, max].
  int64_t integer(const std::string& name, int64_t otherwise, int64_t min, int64_t max) const;
  double number(const std::string& name, double otherwise, double min, double max) const;

 private:
  std::vector<std::pair<std::string, std::string>> values_;
  std::vector<std::string> rest_;
};

}  // namespace trireme
