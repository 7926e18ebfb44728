#include "trainer/config_fields.h"

#include <cmath>

#include "base/error.h"
#include "base/yaml.h"

namespace trireme {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

template <class List, class Print>
std::string join(const List& list, const Print& print) {
  std::string out;
  for (const auto& item : list) {
    if (!out.empty()) out += ", ";
    out += print(item);
  }
  return out;
}

// Whole bounds as integers are written.
std::string bound_text(double bound) {
  const bool whole = std::floor(bound) == bound && std::abs(bound) < 9e15;
  return whole ? std::to_string(static_cast<int64_t>(bound)) : yaml_number(bound);
}

}  // namespace

std::string FieldRange::text() const {
  const double infinity = std::numeric_limits<double>::infinity();
  if (min == max) return bound_text(min);
  if (min > -infinity && max < infinity)
    return trireme::text("in ", above_min ? "(" : "[", bound_text(min), ", ", bound_text(max),
                         below_max ? ")" : "]");
  if (min > -infinity) return trireme::text(above_min ? "> " : ">= ", bound_text(min));
  if (max < infinity) return trireme::text(below_max ? "< " : "<= ", bound_text(max));
  return "";
}

void FieldList::section(std::string path, std::string doc) {
  section_ = path;
  sections_.push_back({std::move(path), std::move(doc)});
}

ConfigField& FieldList::push(const std::string& name, FieldTarget target, std::string doc) {
  ConfigField field;
  field.path = section_ + "." + name;
  field.target = std::move(target);
  field.doc = std::move(doc);
  return fields_.emplace_back(std::move(field));
}

const ConfigField* FieldList::find(const std::string& path) const {
  for (const ConfigField& field : fields_)
    if (field.path == path) return &field;
  return nullptr;
}

bool FieldList::is_section(const std::string& path) const {
  for (const ConfigSection& section : sections_)
    if (section.path == path) return true;
  return false;
}

std::string yaml_value(const FieldTarget& target) {
  const auto number = [](const auto& value) -> std::string {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, int64_t>) return std::to_string(value);
    else return yaml_number(value);
  };
  return std::visit(
      Overloaded{[](const bool* v) -> std::string { return *v ? "true" : "false"; },
                 [&](const int64_t* v) { return number(*v); }, [&](const double* v) { return number(*v); },
                 [](const std::string* v) { return yaml_string(*v); },
                 [&](const auto* v) -> std::string {
                   using T = std::decay_t<decltype(*v)>;
                   if constexpr (std::is_same_v<T, std::optional<int64_t>> ||
                                 std::is_same_v<T, std::optional<double>>)
                     return v->has_value() ? number(**v) : "null";
                   else
                     return text("[", join(*v, number), "]");
                 },
                 [](const std::vector<std::string>* v) { return text("[", join(*v, yaml_string), "]"); },
                 [](const std::vector<DataSource>* v) {
                   return text("[",
                               join(*v,
                                    [](const DataSource& s) {
                                      return text("{path: ", yaml_string(s.path),
                                                  ", weight: ", yaml_number(s.weight), "}");
                                    }),
                               "]");
                 },
                 [](const Choice& c) { return yaml_string(c.names.at(c.get())); }},
      target);
}

std::string wanted(const ConfigField& field) {
  return std::visit(
      Overloaded{
          [](const bool*) -> std::string { return "true or false"; },
          [](const int64_t*) -> std::string { return "an integer"; },
          [](const double*) -> std::string { return "a number"; },
          [](const std::string*) -> std::string { return "a string"; },
          [](const std::optional<int64_t>*) -> std::string { return "an integer or null"; },
          [](const std::optional<double>*) -> std::string { return "a number or null"; },
          [](const std::array<double, 2>*) -> std::string { return "a list of 2 numbers"; },
          [](const std::vector<int64_t>*) -> std::string { return "a list of integers"; },
          [](const std::vector<std::string>*) -> std::string { return "a string or a list of strings"; },
          [](const std::vector<DataSource>*) -> std::string { return "a path or a list of {path, weight}"; },
          [](const Choice& c) {
            return text("one of ", join(c.names, [](const std::string& s) { return s; }));
          }},
      field.target);
}

}  // namespace trireme
