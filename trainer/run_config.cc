#include "trainer/run_config.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "base/nearest_name.h"
#include "base/utf8.h"
#include "base/yaml.h"
#include "trainer/field_reader.h"
#include "trainer/model_section.h"

namespace trireme {
namespace {

// What other systems call these.
constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kOtherNames = {{
    {"lr", "train.learning_rate"},
    {"batch_size", "train.global_batch"},
    {"global_batch_size", "train.global_batch"},
    {"micro_batch_size", "train.micro_batch"},
    {"max_steps", "train.steps"},
    {"train_iters", "train.steps"},
    {"num_train_epochs", "train.epochs"},
    {"max_grad_norm", "train.clip_grad_norm"},
    {"clip_grad", "train.clip_grad_norm"},
    {"min_lr", "train.min_learning_rate"},
    {"seq_len", "data.sequence_length"},
    {"seq_length", "data.sequence_length"},
    {"block_size", "data.sequence_length"},
    {"tp", "parallel.tensor"},
    {"pp", "parallel.pipeline"},
    {"dp", "parallel.data"},
}};

std::string last_name(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string parent(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

// The known path that an unknown one most likely means; empty if none is near.
std::string suggestion(const FieldList& list, const std::string& path) {
  std::vector<std::string> paths = {"model", "model.from"};
  for (const auto& section : list.sections()) paths.push_back(section.path);
  for (const auto& field : list.fields()) paths.push_back(field.path);
  const std::string name = last_name(path);
  for (const std::string& known : paths)  // the right name in the wrong section
    if (last_name(known) == name) return known;
  std::vector<std::string> names;
  for (const std::string& known : paths)
    if (parent(known) == parent(path)) names.push_back(last_name(known));
  if (const std::string near = nearest_name(name, names); !near.empty())
    return parent(path).empty() ? near : parent(path) + "." + near;
  for (const auto& [other, known] : kOtherNames)
    if (other == name) return std::string(known);
  names.clear();
  for (const std::string& known : paths) names.push_back(last_name(known));
  if (const std::string near = nearest_name(name, names); !near.empty())
    return paths[static_cast<size_t>(std::find(names.begin(), names.end(), near) - names.begin())];
  return {};
}

class Loader {
 public:
  explicit Loader(const std::string& source)
      : list_(fields_of(config_)), default_list_(fields_of(defaults_)) {
    config_.source = source;
  }

  void read_file(const YamlNode& root) {
    origin_ = {config_.source, ""};
    if (root.is_null()) return;
    check<ConfigError>(root.type == YamlNode::Type::kMap,
                       yaml_position(config_.source, root.line, root.column), "is ", describe(root),
                       "; it must be a map of sections: run, model, data, train, ...");
    for (const auto& entry : root.entries) {
      if (entry.key == "model") read_model(entry);
      else read_entry("", entry);
    }
  }

  void read_override(const std::string& argument) {
    const size_t equals = argument.find('=');
    check<ConfigError>(equals != std::string::npos && equals > 0, "command line: ", excerpt(argument, 120),
                       " is not an override; write key.path=value");
    check<ConfigError>(is_valid_utf8(argument), "command line: an override is not UTF-8");
    const std::string path = argument.substr(0, equals);
    origin_ = {"command line", argument};
    const YamlNode value = override_value(argument.substr(equals + 1));
    if (path.starts_with("model.")) {
      read_model_key(path.substr(6), value);
    } else if (const ConfigField* field = list_.find(path)) {
      set(*field, value);
    } else if (path == "model" || list_.is_section(path)) {
      throw ConfigError(text("command line: ", excerpt(argument, 120), " sets a whole section; write ", path,
                             ".KEY=value"));
    } else {
      unknown(path, origin_.subject(0, 0, path));
    }
  }

  RunConfig finish(const std::string& default_name) {
    for (const ConfigField& field : list_.fields())
      check<ConfigError>(!field.is_required || given_.contains(field.path), config_.source, ": ", field.path,
                         " is missing; give ", field.doc);
    check<ConfigError>(!config_.model.from.empty() || config_.model.keys.contains("model_type"),
                       config_.source, ": model.model_type is missing; name the family, or give model.from");
    if (config_.run.name.empty()) config_.run.name = default_name;
    const std::string& name = config_.run.name;
    check<ConfigError>(
        name != "." && name != ".." && name.size() <= 200 && name.find('/') == std::string::npos,
        config_.source, ": run.name=", name, " is not a plain file name of at most 200 bytes");
    if (config_.run.dir.empty()) config_.run.dir = "runs/" + name;
    if (config_.model.from.empty()) load_model_config(config_);
    return std::move(config_);
  }

 private:
  [[noreturn]] void unknown(const std::string& path, const std::string& subject) const {
    const std::string near = suggestion(list_, path);
    throw ConfigError(text(subject, " is not a known key", near.empty() ? "" : "; did you mean ", near,
                           near.empty() ? "" : "?"));
  }

  void read_entry(const std::string& section, const YamlNode::Entry& entry) {
    const std::string path = section.empty() ? entry.key : section + "." + entry.key;
    const std::string subject = origin_.subject(entry.line, entry.column, path);
    if (entry.key.find('.') != std::string::npos)
      throw ConfigError(
          text(subject, " has a dot in its name; nest it: ", parent(path), ": {", last_name(path), ": ...}"));
    if (list_.is_section(path)) {
      if (entry.value.is_null()) return;
      check<ConfigError>(entry.value.type == YamlNode::Type::kMap, subject, " is ", describe(entry.value),
                         "; it must be a map of keys");
      for (const auto& child : entry.value.entries) read_entry(path, child);
    } else if (const ConfigField* field = list_.find(path)) {
      set(*field, entry.value);
    } else {
      unknown(path, subject);
    }
  }

  void set(const ConfigField& field, const YamlNode& value) {
    if (value.is_null()) {
      reset_field(field, *default_list_.find(field.path));
      given_.erase(field.path);
    } else {
      set_field(field, value, origin_);
      given_.insert(field.path);
    }
  }

  void read_model(const YamlNode::Entry& entry) {
    if (entry.value.is_null()) return;
    check<ConfigError>(entry.value.type == YamlNode::Type::kMap,
                       origin_.subject(entry.line, entry.column, "model"), " is ", describe(entry.value),
                       "; it must be a map of keys");
    for (const auto& child : entry.value.entries) read_model_key(child.key, child.value);
  }

  void read_model_key(const std::string& key, const YamlNode& value) {
    ModelSection& model = config_.model;
    if (key == "from") {
      ConfigField field;
      field.path = "model.from";
      field.target = &model.from;
      if (value.is_null()) model.from.clear();
      else set_field(field, value, origin_);
      return;
    }
    std::string where = origin_.from_command_line() ? "command line"
                                                    : yaml_position(config_.source, value.line, value.column);
    while (where.ends_with(' ') || where.ends_with(':')) where.pop_back();
    model.keys[key] = yaml_to_json(value, where);
    model.origins[key] = where;
  }

  // The value of an override: YAML where it begins as a list, a map or a quoted string, else plain text.
  YamlNode override_value(const std::string& value) const {
    if (!value.empty() && std::string_view("[{\"'").find(value[0]) != std::string_view::npos) {
      YamlNode node = parse_yaml(value, "command line: " + excerpt(origin_.override_text, 120));
      clear_positions(node);
      return node;
    }
    YamlNode node;
    node.scalar = value;
    node.kind = classify_plain_scalar(value);
    return node;
  }

  static void clear_positions(YamlNode& node) {
    node.line = node.column = 0;
    for (YamlNode& item : node.items) clear_positions(item);
    for (auto& entry : node.entries) {
      entry.line = entry.column = 0;
      clear_positions(entry.value);
    }
  }

  RunConfig config_, defaults_;
  FieldList list_, default_list_;
  ValueOrigin origin_;
  std::set<std::string> given_;
};

RunConfig load(const YamlNode& root, const std::string& source, const std::string& name,
               const std::vector<std::string>& overrides) {
  Loader loader(source);
  loader.read_file(root);
  for (const std::string& argument : overrides) loader.read_override(argument);
  return loader.finish(name);
}

}  // namespace

RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  return load(read_yaml(path), path.string(), path.stem().string(), overrides);
}

RunConfig parse_run_config(std::string_view yaml, const std::string& source,
                           const std::vector<std::string>& overrides) {
  return load(parse_yaml(yaml, source), source, "run", overrides);
}

}  // namespace trireme
