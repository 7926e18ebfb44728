// One description for each field of a config: its path, where its value lies, range, unit and text. Reading a
// file, overrides, the resolved dump, the JSON Schema and "did you mean" all come from this list and nothing
// else.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace trireme {

// A file of prepared data and its share in a mixture, relative to the other sources'.
struct DataSource {
  std::string path;
  double weight = 1;
  bool operator==(const DataSource&) const = default;
};

// A value that is one of a few names.
struct Choice {
  std::vector<std::string> names;
  std::function<size_t()> get;
  std::function<void(size_t)> set;
};

using FieldTarget = std::variant<bool*, int64_t*, double*, std::string*, std::optional<int64_t>*,
                                 std::optional<double>*, std::array<double, 2>*, std::vector<int64_t>*,
                                 std::vector<std::string>*, std::vector<DataSource>*, Choice>;

// Of a number, or of each number of a list.
struct FieldRange {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;  // min itself is outside
  bool below_max = false;  // max itself is outside
  bool contains(double value) const {
    return (above_min ? value > min : value >= min) && (below_max ? value < max : value <= max);
  }
  bool bounded() const {
    return min > -std::numeric_limits<double>::infinity() || max < std::numeric_limits<double>::infinity();
  }
  std::string text() const;  // ">= 1", "in [0, 1)"
};

struct ConfigField {
  std::string path;  // "train.learning_rate"
  FieldTarget target;
  std::string doc;  // one line
  std::string unit_name;
  FieldRange range;
  bool is_required = false;

  ConfigField& unit(std::string name) { return unit_name = std::move(name), *this; }
  ConfigField& at_least(double min) { return range.min = min, *this; }
  ConfigField& at_most(double max) { return range.max = max, *this; }
  ConfigField& above(double min) { return range.min = min, range.above_min = true, *this; }
  ConfigField& below(double max) { return range.max = max, range.below_max = true, *this; }
  ConfigField& required() { return is_required = true, *this; }
};

struct ConfigSection {
  std::string path;  // "train", "train.early_stopping"
  std::string doc;
};

// The fields of one config object, in order. Holds pointers into it.
class FieldList {
 public:
  // Fields added from here on belong to `path`. Sections are listed before what they hold.
  void section(std::string path, std::string doc);

  template <class T>
  ConfigField& add(const std::string& name, T& value, std::string doc) {
    return push(name, FieldTarget(&value), std::move(doc));
  }
  template <class E>
  ConfigField& choice(const std::string& name, E& value,
                      const std::vector<std::pair<std::string, E>>& choices, std::string doc) {
    Choice choice;
    std::vector<E> values;
    for (const auto& [text, option] : choices) {
      choice.names.push_back(text);
      values.push_back(option);
    }
    choice.get = [&value, values] {
      size_t i = 0;
      while (i < values.size() && !(values[i] == value)) ++i;
      return i;
    };
    choice.set = [&value, values](size_t i) { value = values.at(i); };
    return push(name, std::move(choice), std::move(doc));
  }

  const std::vector<ConfigField>& fields() const& { return fields_; }
  const std::vector<ConfigField>& fields() const&& = delete;  // would dangle in a range-for
  const std::vector<ConfigSection>& sections() const& { return sections_; }
  const std::vector<ConfigSection>& sections() const&& = delete;
  const ConfigField* find(const std::string& path) const;  // null if unknown
  bool is_section(const std::string& path) const;

 private:
  ConfigField& push(const std::string& name, FieldTarget target, std::string doc);

  std::string section_;
  std::vector<ConfigField> fields_;
  std::vector<ConfigSection> sections_;
};

// The text of a field's value as YAML: "[0.9, 0.95]", "adamw", "null".
std::string yaml_value(const FieldTarget& target);

// What a field takes, for messages: "an integer", "a path or a list of {path, weight}", "one of adamw, sgd".
std::string wanted(const ConfigField& field);

}  // namespace trireme
