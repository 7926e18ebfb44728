// The typed reader of base/json.h.
#include <cmath>

#include "base/json.h"

namespace trireme {
namespace {

namespace json = boost::json;

std::string wanted_integer(int64_t min, int64_t max) {
  if (min == JsonObject::kMin && max == JsonObject::kMax) return "an integer";
  if (max == JsonObject::kMax) return text("an integer of at least ", min);
  if (min == JsonObject::kMin) return text("an integer of at most ", max);
  return text("an integer in [", min, ", ", max, "]");
}

std::string wanted_number(double min, double max) {
  if (std::isinf(min) && std::isinf(max)) return "a number";
  if (std::isinf(max)) return text("a number of at least ", min);
  if (std::isinf(min)) return text("a number of at most ", max);
  return text("a number in [", min, ", ", max, "]");
}

[[noreturn]] void wrong(const json::value& found, const std::string& where, const std::string& name,
                        const std::string& wanted) {
  throw FileError(text(where, ": ", name, " is ", describe(found), "; it must be ", wanted));
}

bool boolean_of(const json::value& v, const std::string& where, const std::string& name) {
  if (!v.is_bool()) wrong(v, where, name, "true or false");
  return v.get_bool();
}

}  // namespace

int64_t json_integer(const json::value& v, const std::string& where, const std::string& name, int64_t min,
                     int64_t max) {
  if (!v.is_int64() && !(v.is_uint64() && v.get_uint64() <= static_cast<uint64_t>(JsonObject::kMax)))
    wrong(v, where, name, wanted_integer(min, max));
  const int64_t i = v.is_int64() ? v.get_int64() : static_cast<int64_t>(v.get_uint64());
  if (i < min || i > max) wrong(v, where, name, wanted_integer(min, max));
  return i;
}

double json_number(const json::value& v, const std::string& where, const std::string& name, double min, double max) {
  if (!v.is_number()) wrong(v, where, name, wanted_number(min, max));
  const double d = v.is_double()  ? v.get_double()
                   : v.is_int64() ? static_cast<double>(v.get_int64())
                                  : static_cast<double>(v.get_uint64());
  if (!std::isfinite(d) || d < min || d > max) wrong(v, where, name, wanted_number(min, max));
  return d;
}

std::string json_string(const json::value& v, const std::string& where, const std::string& name) {
  if (!v.is_string()) wrong(v, where, name, "a string");
  return std::string(v.get_string());
}

JsonObject::JsonObject(const json::value& value, std::string where, std::string path)
    : object_(value.if_object()), where_(std::move(where)), path_(std::move(path)) {
  if (!object_) wrong(value, where_, path_.empty() ? "the document" : path_, "an object");
}

JsonObject::JsonObject(const json::object& object, std::string where, std::string path)
    : object_(&object), where_(std::move(where)), path_(std::move(path)) {}

std::string JsonObject::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : text(path_, '.', key);
}

void JsonObject::fail(std::string_view key, const std::string& message) const {
  throw FileError(text(where_, ": ", path_of(key), " ", message));
}

const json::value* JsonObject::find(std::string_view key) const {
  const json::value* v = object_->if_contains(key);
  return v && !v->is_null() ? v : nullptr;
}

const json::value& JsonObject::require(std::string_view key, const std::string& wanted) const {
  const json::value* v = object_->if_contains(key);
  if (!v) fail(key, "is missing; it must be " + wanted);
  if (v->is_null()) wrong(*v, where_, path_of(key), wanted);
  return *v;
}

int64_t JsonObject::integer(std::string_view key, int64_t min, int64_t max) const {
  return json_integer(require(key, wanted_integer(min, max)), where_, path_of(key), min, max);
}

std::optional<int64_t> JsonObject::optional_integer(std::string_view key, int64_t min, int64_t max) const {
  if (!has(key)) return std::nullopt;
  return integer(key, min, max);
}

double JsonObject::number(std::string_view key, double min, double max) const {
  return json_number(require(key, wanted_number(min, max)), where_, path_of(key), min, max);
}

std::optional<double> JsonObject::optional_number(std::string_view key, double min, double max) const {
  if (!has(key)) return std::nullopt;
  return number(key, min, max);
}

bool JsonObject::boolean(std::string_view key) const {
  return boolean_of(require(key, "true or false"), where_, path_of(key));
}

std::optional<bool> JsonObject::optional_boolean(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return boolean(key);
}

std::string JsonObject::string(std::string_view key) const {
  return json_string(require(key, "a string"), where_, path_of(key));
}

std::optional<std::string> JsonObject::optional_string(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return string(key);
}

const json::array& JsonObject::array(std::string_view key) const {
  const json::value& v = require(key, "an array");
  if (!v.is_array()) wrong(v, where_, path_of(key), "an array");
  return v.get_array();
}

const json::array* JsonObject::optional_array(std::string_view key) const {
  return has(key) ? &array(key) : nullptr;
}

JsonObject JsonObject::object(std::string_view key) const {
  return JsonObject(require(key, "an object"), where_, path_of(key));
}

std::optional<JsonObject> JsonObject::optional_object(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return object(key);
}

void JsonObject::allow_only(std::initializer_list<std::string_view> known) const {
  for (const auto& item : *object_) {
    bool found = false;
    for (const std::string_view name : known) found = found || name == std::string_view(item.key());
    if (found) continue;
    std::string list;
    for (const std::string_view name : known) list += text(list.empty() ? "" : ", ", name);
    fail(item.key(), "is not a known key; known are: " + list);
  }
}

}  // namespace trireme
