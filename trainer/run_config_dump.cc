// The resolved config as YAML.
#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/yaml.h"
#include "trainer/run_config.h"

namespace trireme {
namespace {

std::string comment_of(const ConfigField& field) {
  std::string comment = field.doc;
  if (!field.unit_name.empty()) comment += " [" + field.unit_name + "]";
  if (field.range.bounded()) comment += "; " + field.range.text();
  if (const Choice* choice = std::get_if<Choice>(&field.target)) {
    comment += "; one of";
    for (const std::string& name : choice->names) comment += (&name == &choice->names[0] ? " " : ", ") + name;
  }
  return comment;
}

std::string indent_of(const std::string& path) {
  return std::string(2 * static_cast<size_t>(std::count(path.begin(), path.end(), '.')), ' ');
}

std::string name_of_path(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// JSON is YAML, but for keys and short strings the plain form reads better.
void dump_model(const ModelSection& model, bool comments, std::string& out) {
  out += "model:";
  if (comments) out += "  # keys of a Hugging Face config.json";
  out += "\n  from: " + yaml_string(model.from);
  if (comments) out += "  # folder with config.json and weights to start from; empty: none";
  out += "\n";
  for (const auto& item : model.keys) {
    const auto* string = item.value().if_string();
    out += "  " + yaml_string(item.key()) + ": " + (string ? yaml_string(*string) : to_json(item.value())) +
           "\n";
  }
}

}  // namespace

std::string dump_run_config(const RunConfig& config, bool comments) {
  RunConfig copy = config;
  const FieldList list = fields_of(copy);
  std::string out, section;
  for (const ConfigField& field : list.fields()) {
    const std::string parent = field.path.substr(0, field.path.rfind('.'));
    if (parent != section) {
      if (section == "run") dump_model(config.model, comments, out);
      section = parent;
      const auto described = std::find_if(list.sections().begin(), list.sections().end(),
                                          [&](const ConfigSection& s) { return s.path == parent; });
      out +=
          indent_of(parent) + name_of_path(parent) + ":" + (comments ? "  # " + described->doc : "") + "\n";
    }
    out += indent_of(field.path) + name_of_path(field.path) + ": " + yaml_value(field.target) +
           (comments ? "  # " + comment_of(field) : "") + "\n";
  }
  return out;
}

}  // namespace trireme
