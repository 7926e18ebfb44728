#include "base/json.h"

#include <boost/json.hpp>

#include <charconv>
#include <cmath>

#include "base/files.h"
#include "base/utf8.h"

namespace trireme {
namespace {

namespace json = boost::json;

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  json::value document() {
    const size_t valid = valid_utf8_prefix(text_);
    if (valid != text_.size()) fail_at(valid, "bytes that are not UTF-8");
    if (text_.starts_with("\xEF\xBB\xBF")) fail("a byte order mark stands before the value; remove it");
    json::value result = value(1);
    skip_space();
    if (at_ != text_.size()) fail("text after the end of the value");
    return result;
  }

 private:
  [[noreturn]] void fail_at(size_t offset, const std::string& message) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < offset; ++i) {
      if (text_[i] == '\n') {
        ++line;
        column = 1;
      } else if ((static_cast<uint8_t>(text_[i]) & 0xC0) != 0x80) {
        ++column;
      }
    }
    throw FileError(text(where_, ": line ", line, ", column ", column, ": ", message));
  }
  [[noreturn]] void fail(const std::string& message) const { fail_at(at_, message); }

  bool done() const { return at_ == text_.size(); }
  void skip_space() {
    while (!done() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string found() const {
    if (done()) return "the text ends";
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c < 0x20 || c == 0x7F) return text("found control character ", int{c});
    size_t length = 1;
    while (at_ + length < text_.size() && (static_cast<uint8_t>(text_[at_ + length]) & 0xC0) == 0x80) ++length;
    return text("found '", text_.substr(at_, length), "'");
  }

  json::value value(int depth) {
    skip_space();
    if (done()) fail("the text ends where a value should stand");
    switch (text_[at_]) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"': return json::value(json::string(string()));
      case 't': return word("true", true);
      case 'f': return word("false", false);
      case 'n': return word("null", nullptr);
      default: return number();
    }
  }

  json::value word(std::string_view name, json::value v) {
    if (text_.substr(at_, name.size()) != name) fail(text("expected a value, ", found()));
    at_ += name.size();
    return v;
  }

  json::value object(int depth) {
    if (depth > kMaxJsonDepth) fail(text("nested deeper than ", kMaxJsonDepth));
    ++at_;
    json::object result;
    skip_space();
    if (take('}')) return result;
    while (true) {
      skip_space();
      const size_t key_at = at_;
      if (done() || text_[at_] != '"') fail(text("expected a key in double quotes, ", found()));
      const std::string key = string();
      if (result.find(key) != result.end()) fail_at(key_at, text("duplicate key \"", key, "\""));
      skip_space();
      if (!take(':')) fail(text("expected ':' after the key, ", found()));
      result.emplace(key, value(depth + 1));
      skip_space();
      if (take('}')) return result;
      if (!take(',')) fail(text("expected ',' or '}', ", found()));
    }
  }

  json::value array(int depth) {
    if (depth > kMaxJsonDepth) fail(text("nested deeper than ", kMaxJsonDepth));
    ++at_;
    json::array result;
    skip_space();
    if (take(']')) return result;
    while (true) {
      result.push_back(value(depth + 1));
      skip_space();
      if (take(']')) return result;
      if (!take(',')) fail(text("expected ',' or ']', ", found()));
    }
  }

  uint32_t hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = done() ? '\0' : text_[at_];
      uint32_t digit = 0;
      if (c >= '0' && c <= '9') digit = c - '0';
      else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
      else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
      else fail(text("expected four hexadecimal digits after \\u, ", found()));
      code = code * 16 + digit;
    }
    return code;
  }

  void escape(std::string& out) {
    const size_t begin = at_ - 1;  // of the backslash
    if (done()) fail("the text ends inside a string");
    const char c = text_[at_++];
    switch (c) {
      case '"': case '\\': case '/': out.push_back(c); return;
      case 'b': out.push_back('\b'); return;
      case 'f': out.push_back('\f'); return;
      case 'n': out.push_back('\n'); return;
      case 'r': out.push_back('\r'); return;
      case 't': out.push_back('\t'); return;
      case 'u': break;
      default: fail_at(begin, "unknown escape in a string");
    }
    uint32_t code = hex4();
    if (code >= 0xDC00 && code <= 0xDFFF) fail_at(begin, "a low surrogate escape without its high one");
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (!take('\\') || !take('u')) fail_at(begin, "a high surrogate escape without its low one");
      const uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail_at(begin, "a high surrogate escape without its low one");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, code);
  }

  std::string string() {
    ++at_;
    std::string out;
    while (true) {
      const size_t begin = at_;
      while (!done() && text_[at_] != '"' && text_[at_] != '\\' && static_cast<uint8_t>(text_[at_]) >= 0x20) ++at_;
      out.append(text_.substr(begin, at_ - begin));
      if (done()) fail("the text ends inside a string");
      if (take('"')) return out;
      if (!take('\\')) fail("a control character inside a string; write it as an escape");
      escape(out);
    }
  }

  size_t digits() {
    const size_t begin = at_;
    while (!done() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    return at_ - begin;
  }

  json::value number() {
    const size_t begin = at_;
    const bool negative = take('-');
    const size_t first = at_;
    const size_t whole = digits();
    if (whole == 0) {
      if (negative) fail(text("expected a digit after '-', ", found()));
      fail(text("expected a value, ", found()));
    }
    if (whole > 1 && text_[first] == '0') fail_at(first, "a number with a leading zero");
    bool is_integer = true;
    if (take('.')) {
      is_integer = false;
      if (digits() == 0) fail(text("expected a digit after '.', ", found()));
    }
    if (take('e') || take('E')) {
      is_integer = false;
      if (!take('+')) take('-');
      if (digits() == 0) fail(text("expected a digit in the exponent, ", found()));
    }
    const char* from = text_.data() + begin;
    const char* to = text_.data() + at_;
    if (is_integer) {
      int64_t i = 0;
      if (std::from_chars(from, to, i).ec == std::errc()) return i;
      uint64_t u = 0;
      if (!negative && std::from_chars(from, to, u).ec == std::errc()) return u;
      fail_at(begin, text("the integer ", shortened(begin), " does not fit 64 bits"));
    }
    double d = 0;
    if (std::from_chars(from, to, d).ec != std::errc() || !std::isfinite(d))
      fail_at(begin, text("the number ", shortened(begin), " is out of the range of a double"));
    return d;
  }

  std::string shortened(size_t begin) const {
    const std::string_view all = text_.substr(begin, at_ - begin);
    return all.size() <= 40 ? std::string(all) : std::string(all.substr(0, 40)) + "...";
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

void write_string(std::string& out, std::string_view s) {
  out.push_back('"');
  for (const char c : s) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          constexpr char hex[] = "0123456789abcdef";
          out += "\\u00";
          out.push_back(hex[c >> 4]);
          out.push_back(hex[c & 15]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

void write_double(std::string& out, double d) {
  check<Error>(std::isfinite(d), "JSON cannot hold the number ", d);
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d).ptr;
  const std::string_view digits(buffer, end - buffer);
  out += digits;
  if (digits.find_first_of(".e") == digits.npos) out += ".0";
}

void write_value(std::string& out, const json::value& v, bool indented, int depth) {
  const auto new_line = [&](int level) {
    if (!indented) return;
    out.push_back('\n');
    out.append(static_cast<size_t>(2 * level), ' ');
  };
  switch (v.kind()) {
    case json::kind::null: out += "null"; break;
    case json::kind::bool_: out += v.get_bool() ? "true" : "false"; break;
    case json::kind::int64: out += std::to_string(v.get_int64()); break;
    case json::kind::uint64: out += std::to_string(v.get_uint64()); break;
    case json::kind::double_: write_double(out, v.get_double()); break;
    case json::kind::string: write_string(out, v.get_string()); break;
    case json::kind::array: {
      bool first = true;
      out.push_back('[');
      for (const json::value& item : v.get_array()) {
        if (!first) out.push_back(',');
        first = false;
        new_line(depth + 1);
        write_value(out, item, indented, depth + 1);
      }
      if (!first) new_line(depth);
      out.push_back(']');
      break;
    }
    case json::kind::object: {
      bool first = true;
      out.push_back('{');
      for (const auto& [key, item] : v.get_object()) {
        if (!first) out.push_back(',');
        first = false;
        new_line(depth + 1);
        write_string(out, key);
        out += indented ? ": " : ":";
        write_value(out, item, indented, depth + 1);
      }
      if (!first) new_line(depth);
      out.push_back('}');
      break;
    }
  }
}

}  // namespace

boost::json::value parse_json(std::string_view text, const std::string& where) { return Parser(text, where).document(); }

boost::json::value read_json_file(const std::filesystem::path& path, size_t max_bytes) {
  return parse_json(read_text_file(path, max_bytes), path.string());
}

std::string to_json(const boost::json::value& value, JsonLayout layout) {
  std::string out;
  write_value(out, value, layout == JsonLayout::kIndented, 0);
  if (layout == JsonLayout::kIndented) out.push_back('\n');
  return out;
}

std::string describe(const boost::json::value& v) {
  switch (v.kind()) {
    case json::kind::string: {
      const auto& s = v.get_string();
      if (s.size() <= 80) return "the string " + to_json(v);
      std::string_view head = std::string_view(s).substr(0, 80);
      return "the string " + to_json(json::value(head.substr(0, valid_utf8_prefix(head)))) + "...";
    }
    case json::kind::array: return text("an array of ", v.get_array().size());
    case json::kind::object: return text("an object of ", v.get_object().size(), " keys");
    case json::kind::double_:
      if (!std::isfinite(v.get_double())) return text("the number ", v.get_double());
      return "the number " + to_json(v);
    case json::kind::int64:
    case json::kind::uint64: return "the number " + to_json(v);
    default: return to_json(v);
  }
}

}  // namespace trireme
