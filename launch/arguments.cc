#include "launch/arguments.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/nearest_name.h"

namespace trireme {

Arguments::Arguments(const std::vector<std::string>& words, const std::vector<std::string>& options,
                     const std::vector<std::string>& switches) {
  auto contains = [](const std::vector<std::string>& set, const std::string& name) {
    return std::find(set.begin(), set.end(), name) != set.end();
  };
  bool only_rest = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (only_rest || word.rfind("--", 0) != 0) {
      rest_.push_back(word);
      continue;
    }
    if (word == "--") {
      only_rest = true;
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? std::string::npos : equals - 2);
    if (contains(switches, name)) {
      check<ConfigError>(equals == std::string::npos, "--", name, " takes no value");
      values_.push_back({name, ""});
    } else if (contains(options, name)) {
      if (equals != std::string::npos) {
        values_.push_back({name, word.substr(equals + 1)});
      } else {
        check<ConfigError>(i + 1 < words.size(), "--", name, " wants a value");
        values_.push_back({name, words[++i]});
      }
    } else {
      std::vector<std::string> known = options;
      known.insert(known.end(), switches.begin(), switches.end());
      const std::string nearest = nearest_name(name, known);
      throw ConfigError(text("--", name, " is not an option here",
                             nearest.empty() ? std::string() : text("; did you mean --", nearest, "?")));
    }
  }
}

bool Arguments::has(const std::string& name) const { return value(name).has_value(); }

std::vector<std::string> Arguments::all(const std::string& name) const {
  std::vector<std::string> found;
  for (const auto& [key, value] : values_)
    if (key == name) found.push_back(value);
  return found;
}

std::optional<std::string> Arguments::value(const std::string& name) const {
  const std::vector<std::string> found = all(name);
  if (found.empty()) return std::nullopt;
  return found.back();
}

std::string Arguments::required(const std::string& name) const {
  const auto found = value(name);
  check<ConfigError>(found.has_value(), "--", name, " is missing; see --help");
  return *found;
}

int64_t Arguments::integer(const std::string& name, int64_t otherwise, int64_t min, int64_t max) const {
  const auto given = value(name);
  if (!given) return otherwise;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), number);
  check<ConfigError>(
      error == std::errc() && end == given->data() + given->size() && number >= min && number <= max, "--",
      name, "=", *given, ": wants an integer from ", min, " to ", max);
  return number;
}

double Arguments::number(const std::string& name, double otherwise, double min, double max) const {
  const auto given = value(name);
  if (!given) return otherwise;
  double number = 0;
  const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), number);
  check<ConfigError>(error == std::errc() && end == given->data() + given->size() && std::isfinite(number) &&
                         number >= min && number <= max,
                     "--", name, "=", *given, ": wants a number from ", min, " to ", max);
  return number;
}

}  // namespace trireme
