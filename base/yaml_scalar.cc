// The grammar of scalars, and its inverse. See yaml.h.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/yaml.h"

namespace trireme {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t skip_digits(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

// kInteger or kFloat if `text` is a number of JSON's grammar, kString if not.
ScalarKind json_number(std::string_view text) {
  size_t at = text[0] == '-' ? 1 : 0;
  const size_t digits = at;
  at = skip_digits(text, at);
  if (at == digits || (text[digits] == '0' && at > digits + 1)) return ScalarKind::kString;
  if (at == text.size()) return ScalarKind::kInteger;
  if (text[at] == '.') {
    const size_t fraction = at + 1;
    at = skip_digits(text, fraction);
    if (at == fraction) return ScalarKind::kString;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const size_t exponent = at;
    at = skip_digits(text, exponent);
    if (at == exponent) return ScalarKind::kString;
  }
  return at == text.size() ? ScalarKind::kFloat : ScalarKind::kString;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// Text that YAML 1.1, or a reader of it, would take for a number: 010, 0x1f, 0o17, 0b1, 1_000, +1, .5, 5., 1.e3, 12:30:45.
bool like_number(std::string_view text) {
  if (text[0] == '+' || text[0] == '-') text.remove_prefix(1);
  if (text.empty() || (!is_digit(text[0]) && text[0] != '.')) return false;
  if (std::none_of(text.begin(), text.end(), is_digit)) return false;
  const auto all = [&](size_t from, std::string_view set) {
    return text.size() > from && text.find_first_not_of(set, from) == std::string_view::npos;
  };
  if (text[0] == '0' && text.size() > 2) {
    if ((text[1] == 'x' || text[1] == 'X') && all(2, "0123456789abcdefABCDEF_")) return true;
    if ((text[1] == 'o' || text[1] == 'O') && all(2, "01234567_")) return true;
    if ((text[1] == 'b' || text[1] == 'B') && all(2, "01_")) return true;
  }
  if (all(0, "0123456789_:") && text.back() != ':') return true;  // 010, 1_000, 12:30
  // A float with underscores, a bare point, or a leading zero.
  size_t at = 0;
  int points = 0;
  while (at < text.size() && (is_digit(text[at]) || text[at] == '_' || text[at] == '.')) points += text[at++] == '.';
  if (points > 1) return false;  // a version: 1.2.3
  if (at == text.size()) return true;
  if (text[at] != 'e' && text[at] != 'E') return false;
  ++at;
  if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
  return at < text.size() && skip_digits(text, at) == text.size();
}

}  // namespace

ScalarKind classify_plain_scalar(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return ScalarKind::kNull;
  if (text == "true" || text == "false") return ScalarKind::kBool;
  if (ScalarKind number = json_number(text); number != ScalarKind::kString) return number;
  static constexpr std::array kWords = {"yes",  "no",    "on",  "off",  "y",   "n",    "true", "false",
                                        "null", ".inf",  ".nan", "nan", "inf", "-.inf", "+.inf", "-inf",
                                        "+inf", "infinity", "-infinity"};
  if (text.size() <= 9) {
    const std::string folded = lower(text);
    if (std::find(kWords.begin(), kWords.end(), folded) != kWords.end()) return ScalarKind::kAmbiguous;
  }
  return like_number(text) ? ScalarKind::kAmbiguous : ScalarKind::kString;
}

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::string yaml_string(std::string_view text) {
  const auto plain = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.' ||
           c == '/';
  };
  // "-" and "." alone, and a leading "-", have meanings of their own in YAML.
  if (classify_plain_scalar(text) == ScalarKind::kString && std::all_of(text.begin(), text.end(), plain) &&
      text[0] != '-' && text != "..." && text != ".")
    return std::string(text);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string yaml_number(double value) {
  std::array<char, 32> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return std::string(buffer.data(), result.ptr);
}

}  // namespace trireme
