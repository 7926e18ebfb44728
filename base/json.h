// Strict JSON (RFC 8259) over the values of Boost.JSON. Its own parser keeps the last of duplicate keys, reads 1e400
// as infinity and rounds long integers, so the parser here is ours; objects keep their order.
//
//   JsonObject config(parse_json(text, "config.json"), "config.json");
//   int64_t layers = config.integer("n_layer", 1, 10000);
//   double factor = config.object("rope_scaling").number("factor", 1, 1000);
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace trireme {

constexpr int kMaxJsonDepth = 64;

// Parses one document. Integers become int64, or uint64 above that; a number with a fraction or exponent a double,
// correctly rounded. Throws FileError "where: line L, column C: ..." (columns count characters, from 1) on: any
// departure from the grammar, a comment, a byte order mark, text after the value, a duplicate key, bytes that are not
// UTF-8, a lone surrogate escape, an integer beyond 64 bits, a number out of a double's range, depth above 64.
boost::json::value parse_json(std::string_view text, const std::string& where);

// The file's document; `where` is the path. Throws FileError, also for a file above max_bytes.
boost::json::value read_json_file(const std::filesystem::path& path, size_t max_bytes = 64 << 20);

enum class JsonLayout { kCompact, kIndented };  // one line, or two spaces a level and a final newline

// Doubles are written in the shortest form that reads back to the same bits, and always read back as doubles.
// Throws Error on NaN and infinities, which JSON cannot hold.
std::string to_json(const boost::json::value& value, JsonLayout layout = JsonLayout::kCompact);

// What a value is, for messages: `the string "relu"`, `the number 3`, `null`, `an array of 4`.
std::string describe(const boost::json::value& value);

// Reads fields of an object with their types and ranges. Each error is a FileError that names `where`, the path of
// the key, what was found and what is wanted. A view: the object must outlive it.
// In the optional_ and _or forms a key that is absent or null gives nullopt or the default.
class JsonObject {
 public:
  static constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  static constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  // Throws FileError if `value` is not an object. `path` is the dotted path of keys that led here, if any.
  JsonObject(const boost::json::value& value, std::string where, std::string path = "");
  JsonObject(const boost::json::object& object, std::string where, std::string path = "");
  JsonObject(boost::json::value&&, std::string, std::string = "") = delete;  // would dangle
  JsonObject(boost::json::object&&, std::string, std::string = "") = delete;

  bool has(std::string_view key) const { return find(key) != nullptr; }  // present and not null
  // Null when absent or JSON null.
  const boost::json::value* find(std::string_view key) const;

  // An integer in [min, max]. A number with a fraction or exponent is none, whatever its value.
  int64_t integer(std::string_view key, int64_t min = kMin, int64_t max = kMax) const;
  std::optional<int64_t> optional_integer(std::string_view key, int64_t min = kMin, int64_t max = kMax) const;
  int64_t integer_or(std::string_view key, int64_t otherwise, int64_t min = kMin, int64_t max = kMax) const {
    return optional_integer(key, min, max).value_or(otherwise);
  }

  // A finite number in [min, max]; integers count.
  double number(std::string_view key, double min = -kInfinity, double max = kInfinity) const;
  std::optional<double> optional_number(std::string_view key, double min = -kInfinity, double max = kInfinity) const;
  double number_or(std::string_view key, double otherwise, double min = -kInfinity, double max = kInfinity) const {
    return optional_number(key, min, max).value_or(otherwise);
  }

  bool boolean(std::string_view key) const;
  std::optional<bool> optional_boolean(std::string_view key) const;
  bool boolean_or(std::string_view key, bool otherwise) const { return optional_boolean(key).value_or(otherwise); }

  std::string string(std::string_view key) const;
  std::optional<std::string> optional_string(std::string_view key) const;
  std::string string_or(std::string_view key, std::string otherwise) const {
    return optional_string(key).value_or(std::move(otherwise));
  }

  const boost::json::array& array(std::string_view key) const;
  const boost::json::array* optional_array(std::string_view key) const;

  JsonObject object(std::string_view key) const;
  std::optional<JsonObject> optional_object(std::string_view key) const;

  // Throws FileError if a key is none of `known`, naming it and them.
  void allow_only(std::initializer_list<std::string_view> known) const;

  // Throws FileError "where: path.key <message>".
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;

  const boost::json::object& raw() const { return *object_; }
  const std::string& where() const { return where_; }
  std::string path_of(std::string_view key) const;

 private:
  const boost::json::value& require(std::string_view key, const std::string& wanted) const;

  const boost::json::object* object_;
  std::string where_;
  std::string path_;
};

// One value, checked as JsonObject does; for elements of arrays. `name` is the path, e.g. "shape[2]".
int64_t json_integer(const boost::json::value& value, const std::string& where, const std::string& name,
                     int64_t min = JsonObject::kMin, int64_t max = JsonObject::kMax);
double json_number(const boost::json::value& value, const std::string& where, const std::string& name,
                   double min = -JsonObject::kInfinity, double max = JsonObject::kInfinity);
std::string json_string(const boost::json::value& value, const std::string& where, const std::string& name);

}  // namespace trireme
