// JSON Schema (draft 2020-12) of the config file, for editors and for checks outside this program.
#include <algorithm>
#include <cmath>

#include "base/yaml.h"
#include "trainer/model_section.h"
#include "trainer/run_config.h"

namespace trireme {
namespace {

namespace json = boost::json;

// A bound as an integer where it is one, so that editors show 1 and not 1.0.
json::value bound(double value) {
  if (std::floor(value) == value && std::abs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

json::object number_schema(const char* type, const FieldRange& range) {
  json::object s = {{"type", type}};
  if (std::isfinite(range.min)) s[range.above_min ? "exclusiveMinimum" : "minimum"] = bound(range.min);
  if (std::isfinite(range.max)) s[range.below_max ? "exclusiveMaximum" : "maximum"] = bound(range.max);
  return s;
}

json::object list_schema(json::object items) { return {{"type", "array"}, {"items", std::move(items)}}; }

json::object path_schema() { return {{"type", "string"}, {"minLength", 1}}; }

json::object source_schema() {
  json::object source = {{"type", "object"},
                         {"properties", {{"path", path_schema()},
                                         {"weight", {{"type", "number"}, {"exclusiveMinimum", 0}}}}},
                         {"required", {"path"}},
                         {"additionalProperties", false}};
  return {{"anyOf", {path_schema(), std::move(source)}}};
}

struct SchemaOf {
  const FieldRange& range;

  json::object operator()(const bool*) const { return {{"type", "boolean"}}; }
  json::object operator()(const int64_t*) const { return number_schema("integer", range); }
  json::object operator()(const double*) const { return number_schema("number", range); }
  json::object operator()(const std::string*) const { return {{"type", "string"}}; }
  json::object operator()(const std::optional<int64_t>*) const { return number_schema("integer", range); }
  json::object operator()(const std::optional<double>*) const { return number_schema("number", range); }
  json::object operator()(const std::array<double, 2>*) const {
    json::object s = list_schema(number_schema("number", range));
    s["minItems"] = s["maxItems"] = 2;
    return s;
  }
  json::object operator()(const std::vector<int64_t>*) const {
    return list_schema(number_schema("integer", range));
  }
  json::object operator()(const std::vector<std::string>*) const {
    return {{"anyOf", {json::object{{"type", "string"}}, list_schema({{"type", "string"}})}}};
  }
  json::object operator()(const std::vector<DataSource>*) const {
    return {{"anyOf", {path_schema(), list_schema(source_schema())}}};
  }
  json::object operator()(const Choice& choice) const {
    return {{"type", "string"}, {"enum", json::array(choice.names.begin(), choice.names.end())}};
  }
};

// Any field but a required one may be null, which means its default.
json::object field_schema(const ConfigField& field) {
  json::object s = std::visit(SchemaOf{field.range}, field.target);
  if (!field.is_required) s = {{"anyOf", {std::move(s), json::object{{"type", "null"}}}}};
  s["description"] = field.doc + (field.unit_name.empty() ? "" : " [" + field.unit_name + "]");
  const std::string source = "default";
  if (!field.is_required) s["default"] = yaml_to_json(parse_yaml(yaml_value(field.target), source), source);
  return s;
}

json::object object_schema(const std::string& doc) {
  return {{"type", "object"},
          {"description", doc},
          {"properties", json::object()},
          {"additionalProperties", false}};
}

// The family decides which keys it knows; here only those are named that every run gives or is likely to.
json::object model_schema() {
  json::object s = object_schema("keys of a Hugging Face config.json, or from: a folder that has one");
  json::object& keys = s["properties"].as_object();
  keys["from"] = {{"type", "string"}, {"description", "folder with config.json and weights to start from"}};
  keys["model_type"] = {{"type", "string"}, {"description", "the family: gpt2, llama"}};
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings",
                          "n_embd", "n_layer", "n_head", "n_inner", "n_positions"})
    keys[key] = {{"type", {"integer", "null"}}, {"minimum", 1}};
  for (const char* key : {"embd_pdrop", "attn_pdrop", "resid_pdrop", "attention_dropout"})
    keys[key] = {{"type", {"number", "null"}}, {"minimum", 0}, {"exclusiveMaximum", 1}};
  for (const char* key : {"rms_norm_eps", "layer_norm_epsilon", "rope_theta", "initializer_range"})
    keys[key] = {{"type", {"number", "null"}}, {"minimum", 0}};
  for (const char* key : {"tie_word_embeddings", "attention_bias", "mlp_bias"})
    keys[key] = {{"type", {"boolean", "null"}}};
  s["additionalProperties"] = true;
  s["anyOf"] = {json::object{{"required", {"from"}}}, json::object{{"required", {"model_type"}}}};
  return s;
}

}  // namespace

json::object run_config_schema() {
  RunConfig defaults;
  const FieldList list = fields_of(defaults);
  json::object root = object_schema("one run of trireme");
  json::object schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                         {"title", "trireme run config"}};
  for (auto& item : root) schema[item.key()] = std::move(item.value());

  // The object of a section, by its dotted path. Sections come before what they hold.
  const auto object_at = [&](std::string_view path) {
    json::object* at = &schema;
    while (!path.empty()) {
      const std::string_view name = path.substr(0, path.find('.'));
      at = &at->at("properties").as_object().at(name).as_object();
      path.remove_prefix(std::min(path.size(), name.size() + 1));
    }
    return at;
  };
  const auto add = [&](const std::string& path, json::object value, bool required) {
    const size_t dot = path.rfind('.');
    json::object* parent = object_at(dot == std::string::npos ? "" : path.substr(0, dot));
    const std::string name = path.substr(dot + 1);
    parent->at("properties").as_object()[name] = std::move(value);
    if (required) {
      if (!parent->contains("required")) (*parent)["required"] = json::array();
      parent->at("required").as_array().push_back(json::string(name));
    }
  };
  add("model", model_schema(), true);
  for (const ConfigSection& section : list.sections()) add(section.path, object_schema(section.doc), false);
  for (const ConfigField& field : list.fields()) {
    add(field.path, field_schema(field), field.is_required);
    if (field.is_required) {
      json::array& required = schema["required"].as_array();
      const json::string section(field.path.substr(0, field.path.find('.')));
      if (std::find(required.begin(), required.end(), json::value(section)) == required.end())
        required.push_back(section);
    }
  }
  return schema;
}

}  // namespace trireme
