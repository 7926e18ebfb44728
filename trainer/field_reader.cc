#include "trainer/field_reader.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/nearest_name.h"

namespace trireme {
namespace {

class Reader {
 public:
  Reader(const ConfigField& field, const ValueOrigin& origin) : field_(field), origin_(origin) {}

  void operator()(bool* out, const YamlNode& node) const {
    if (!is_scalar(node, ScalarKind::kBool)) wrong_type(node);
    *out = node.scalar == "true";
  }
  void operator()(int64_t* out, const YamlNode& node) const { *out = integer(node); }
  void operator()(double* out, const YamlNode& node) const { *out = number(node); }
  void operator()(std::string* out, const YamlNode& node) const { *out = string(node); }
  void operator()(std::optional<int64_t>* out, const YamlNode& node) const { *out = integer(node); }
  void operator()(std::optional<double>* out, const YamlNode& node) const { *out = number(node); }

  void operator()(std::array<double, 2>* out, const YamlNode& node) const {
    if (node.type != YamlNode::Type::kList) wrong_type(node);
    if (node.items.size() != out->size())
      fail(node, text("is a list of ", node.items.size(), "; it must be ", wanted(field_)));
    std::transform(node.items.begin(), node.items.end(), out->begin(),
                   [&](const YamlNode& i) { return number(i); });
  }
  void operator()(std::vector<int64_t>* out, const YamlNode& node) const {
    if (node.type != YamlNode::Type::kList) wrong_type(node);
    out->clear();
    for (const YamlNode& item : node.items) out->push_back(integer(item));
  }
  void operator()(std::vector<std::string>* out, const YamlNode& node) const {
    out->clear();
    if (node.type == YamlNode::Type::kList) {
      for (const YamlNode& item : node.items) out->push_back(string(item));
    } else {
      out->push_back(string(node));
    }
  }
  void operator()(std::vector<DataSource>* out, const YamlNode& node) const {
    out->clear();
    if (node.type == YamlNode::Type::kList) {
      for (const YamlNode& item : node.items) out->push_back(data_source(item));
    } else {
      out->push_back(data_source(node));
    }
  }
  void operator()(const Choice& choice, const YamlNode& node) const {
    if (node.type != YamlNode::Type::kScalar) wrong_type(node);
    const auto found = std::find(choice.names.begin(), choice.names.end(), node.scalar);
    if (found == choice.names.end()) {
      const std::string near = nearest_name(node.scalar, choice.names);
      fail(node, text("is ", describe(node), "; it must be ", wanted(field_),
                      near.empty() ? "" : "; did you mean ", near, near.empty() ? "" : "?"));
    }
    choice.set(static_cast<size_t>(found - choice.names.begin()));
  }

 private:
  static bool is_scalar(const YamlNode& node, ScalarKind kind) {
    return node.type == YamlNode::Type::kScalar && node.kind == kind;
  }

  [[noreturn]] void fail(const YamlNode& node, const std::string& what) const {
    throw ConfigError(origin_.subject(node.line, node.column, field_.path) + " " + what);
  }

  std::string wanted_with_range() const {
    return text(wanted(field_), field_.range.bounded() ? " " : "", field_.range.text());
  }

  [[noreturn]] void wrong_type(const YamlNode& node) const {
    fail(node, text("is ", describe(node), "; it must be ", wanted_with_range()));
  }

  void check_range(const YamlNode& node, double value) const {
    if (field_.range.contains(value)) return;
    const char* unit = field_.unit_name.empty() ? "" : " ";
    fail(node, text("is ", node.scalar, ", out of range; it must be ", field_.range.text(), unit,
                    field_.unit_name));
  }

  int64_t integer(const YamlNode& node) const {
    if (is_scalar(node, ScalarKind::kFloat)) {
      // 1e9 and 4.0 are numbers, but not written as integers.
      const auto value = parse_number(node.scalar);
      const bool whole = value && std::floor(*value) == *value && std::abs(*value) < 9e15;
      fail(node, text("is ", describe(node), "; it must be ", wanted_with_range(), whole ? ", write " : "",
                      whole ? std::to_string(static_cast<int64_t>(*value)) : std::string()));
    }
    if (!is_scalar(node, ScalarKind::kInteger)) wrong_type(node);
    const auto value = parse_integer(node.scalar);
    if (!value)
      fail(node,
           text("is ", describe(node), ", which does not fit 64 bits; it must be ", wanted_with_range()));
    check_range(node, static_cast<double>(*value));
    return *value;
  }

  double number(const YamlNode& node) const {
    if (!is_scalar(node, ScalarKind::kInteger) && !is_scalar(node, ScalarKind::kFloat)) wrong_type(node);
    const auto value = parse_number(node.scalar);
    if (!value)
      fail(node,
           text("is ", describe(node), ", which does not fit a double; it must be ", wanted_with_range()));
    check_range(node, *value);
    return *value;
  }

  std::string string(const YamlNode& node) const {
    const bool verbatim =
        origin_.from_command_line() && node.type == YamlNode::Type::kScalar && !node.is_null();
    if (verbatim || is_scalar(node, ScalarKind::kString)) {
      if (node.scalar.find('\0') != std::string::npos) fail(node, "holds a NUL character; remove it");
      return node.scalar;
    }
    const bool quotable = node.type == YamlNode::Type::kScalar && !node.is_null();
    fail(node, text("is ", describe(node), "; it must be ", wanted(field_), quotable ? ", quote it" : ""));
  }

  DataSource data_source(const YamlNode& node) const {
    if (node.type != YamlNode::Type::kMap) return {nonempty_path(node)};
    DataSource source;
    for (const auto& [key, line, column, value] : node.entries) {
      if (key == "path") {
        source.path = nonempty_path(value);
      } else if (key == "weight") {
        source.weight = number(value);
        if (!(source.weight > 0)) fail(value, text("has weight ", value.scalar, "; it must be > 0"));
      } else {
        const std::vector<std::string> known = {"path", "weight"};
        const std::string near = nearest_name(key, known);
        throw ConfigError(text(origin_.subject(line, column, field_.path), ".", key, " is not a known key; ",
                               near.empty() ? "known are path and weight" : "did you mean ", near,
                               near.empty() ? "" : "?"));
      }
    }
    if (source.path.empty()) fail(node, "has a source with no path; give {path: ..., weight: ...}");
    return source;
  }

  std::string nonempty_path(const YamlNode& node) const {
    std::string path = string(node);
    if (path.empty()) fail(node, "is an empty path");
    return path;
  }

  const ConfigField& field_;
  const ValueOrigin& origin_;
};

}  // namespace

std::string ValueOrigin::subject(int line, int column, const std::string& path) const {
  if (from_command_line()) return source + ": " + excerpt(override_text, 120);
  return yaml_position(source, line, column) + path;
}

void set_field(const ConfigField& field, const YamlNode& node, const ValueOrigin& origin) {
  std::visit([reader = Reader(field, origin), &node](const auto& target) { reader(target, node); },
             field.target);
}

void reset_field(const ConfigField& field, const ConfigField& other) {
  std::visit(
      [&other](const auto& target) {
        using T = std::decay_t<decltype(target)>;
        const T& from = std::get<T>(other.target);
        if constexpr (std::is_same_v<T, Choice>) target.set(from.get());
        else *target = *from;
      },
      field.target);
}

}  // namespace trireme
