// Words "name=value" of a benchmark's command line, and what benchmarks make of their timings.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace trireme {

class BenchArguments {
 public:
  // Throws ConfigError for a word that is not name=value with one of the names in `known`.
  BenchArguments(int argc, char** argv, const std::vector<std::string>& known) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      const size_t equals = std::min(word.find('='), word.size());
      const std::string name = word.substr(0, equals);
      std::string all;
      for (const std::string& k : known) all += " " + k;
      check<ConfigError>(equals < word.size() && std::count(known.begin(), known.end(), name), "\"", word,
                         "\": give name=value with a name of:", all);
      values_[name] = word.substr(equals + 1);
    }
  }

  std::string word(const std::string& name, const std::string& otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
  }
  // Throws ConfigError unless the value is a whole number, 0 or more.
  int64_t number(const std::string& name, int64_t otherwise) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    const std::string& digits = found->second;
    int64_t n = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
    check<ConfigError>(error == std::errc() && end == digits.data() + digits.size() && n >= 0, name, "=", digits,
                       " is not a whole number");
    return n;
  }

 private:
  std::map<std::string, std::string> values_;
};

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace trireme
