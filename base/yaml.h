// A strict reader of YAML for configuration files, over yaml-cpp's event stream.
//
// yaml-cpp alone keeps duplicate keys, reads 010 as 8, expands aliases without end and takes invalid UTF-8. Here these
// are errors: a duplicate key, an anchor, alias or tag, a second document, a key that is not a scalar of one line,
// invalid UTF-8, a control character, more than kMaxYamlBytes of text, kMaxYamlDepth of nesting, kMaxYamlNodes values
// or kMaxYamlKeyBytes in a key. Scalars stay text; their kind follows one grammar (ScalarKind), which is JSON's for
// numbers, true, false and null.
//
// Every error is a ConfigError, one line: "file.yaml:LINE:COLUMN: what; what to do". Lines and columns start at 1;
// columns count bytes.
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

inline constexpr size_t kMaxYamlBytes = 1 << 20;
inline constexpr int kMaxYamlDepth = 32;
inline constexpr size_t kMaxYamlNodes = 100'000;
inline constexpr size_t kMaxYamlKeyBytes = 256;

// What a plain (unquoted) scalar means.
//   kNull       empty, ~, null (also Null and NULL)
//   kBool       true, false
//   kInteger    -?(0|[1-9][0-9]*)
//   kFloat      JSON's number with a fraction or an exponent: 0.5, 3e-4, -1.5E3
//   kAmbiguous  text that some YAML readers take for a number, a boolean or a time, and others do not: 010, 0x10, +1,
//               1_000, .5, 5., .inf, .nan, nan, inf, yes, no, on, off, y, n, True, FALSE, 12:30. Quoted, it is a string.
//   kString     anything else, and every quoted or block scalar
enum class ScalarKind : uint8_t { kNull, kBool, kInteger, kFloat, kAmbiguous, kString };
ScalarKind classify_plain_scalar(std::string_view text);

// The number that `text` (of kind kInteger, or kInteger or kFloat) spells; empty if it does not fit the type.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_number(std::string_view text);  // finite

struct YamlNode {
  enum class Type : uint8_t { kScalar, kList, kMap };
  struct Entry;

  Type type = Type::kScalar;
  ScalarKind kind = ScalarKind::kNull;  // of a scalar
  std::string scalar;                   // its text, without quotes
  std::vector<YamlNode> items;          // of a list
  std::vector<Entry> entries;           // of a map, in the file's order; keys are distinct
  int line = 0, column = 0;             // 0: not from a file

  bool is_null() const { return type == Type::kScalar && kind == ScalarKind::kNull; }
};

struct YamlNode::Entry {
  std::string key;
  int line = 0, column = 0;  // of the key
  YamlNode value;
};

// Parses one document. `source` names it in messages. Empty text is a null scalar.
YamlNode parse_yaml(std::string_view text, const std::string& source);

// Reads and parses a file; ConfigError also if it cannot be read or is over the size limit.
YamlNode read_yaml(const std::filesystem::path& path);

// The value as JSON: integers as int64, floats as double. Throws ConfigError, "source:line:column: ...", for an ambiguous
// scalar and for a number that does not fit.
boost::json::value yaml_to_json(const YamlNode& node, const std::string& source);

// "source:line:column: ", or "source: " for a node that has no line.
std::string yaml_position(const std::string& source, int line, int column);

// `text` on one line of at most max_bytes, cut at a character and then ending in "...".
std::string excerpt(std::string_view text, size_t max_bytes = 40);

// What a node is, for messages: "the integer 12", "the string \"a\"", "a list". Long text is cut.
std::string describe(const YamlNode& node);

// A double-quoted YAML scalar that reads back as `text`; `text` itself where it is unambiguous unquoted.
std::string yaml_string(std::string_view text);

// The shortest text that reads back as the same finite double.
std::string yaml_number(double value);

}  // namespace trireme
