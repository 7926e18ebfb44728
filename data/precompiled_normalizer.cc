#include "data/precompiled_normalizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "data/unicode.h"

namespace trireme {

namespace {

// Fields of a unit of the trie.
bool has_leaf(uint32_t unit) { return (unit >> 8) & 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }  // of a leaf: no byte
uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

constexpr size_t kMaxClusterBytes = 5;
constexpr size_t kMaxReplacementBytes = 256;

}  // namespace

PrecompiledNormalizer::PrecompiledNormalizer(std::string_view table, const std::string& where) {
  check<FileError>(table.size() <= kMaxBytes, where, ": a table of ", table.size(), " bytes; at most ",
                   kMaxBytes, " are supported");
  const auto u32 = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(table[at + i]);
    return value;
  };
  check<FileError>(table.size() >= 4, where, ": a table of ", table.size(), " bytes is cut short");
  const size_t trie_bytes = u32(0);
  check<FileError>(trie_bytes <= table.size() - 4 && trie_bytes % 4 == 0 && trie_bytes > 0, where,
                   ": the table says that ", trie_bytes, " bytes are its trie, of ", table.size() - 4);
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) units_.push_back(u32(at));
  replacements_ = table.substr(4 + trie_bytes);
  check_trie(where);
}

// Walks through the whole trie. Entries that end alike may share their ends.
void PrecompiledNormalizer::check_trie(const std::string& where) {
  enum State : uint8_t { kNotSeen, kOpen, kDone };
  struct Node {
    size_t base;    // of the children's places
    uint32_t byte;  // of the child that comes next
  };
  std::vector<State> states(units_.size(), kNotSeen);  // by base
  std::vector<Node> path;
  const auto enter = [&](size_t base) {
    // The unit of no byte is a leaf, or none; children are within 256 of it.
    check<FileError>(base < units_.size(), where, ": the trie points to unit ", base, " of ", units_.size());
    check<FileError>(states[base] != kOpen, where, ": the trie goes in a circle at unit ", base);
    if (states[base] == kDone) return;
    states[base] = kOpen;
    path.push_back({base, 1});
  };
  enter(offset_of(units_[0]));
  while (!path.empty()) {
    Node& node = path.back();
    if (node.byte == 256) {
      states[node.base] = kDone;
      path.pop_back();
      continue;
    }
    const uint32_t byte = node.byte++;
    const size_t at = node.base ^ byte;
    if (label_of(unit(at)) != byte) continue;
    if (path.size() == 1) begins_[byte] = true;
    const size_t base = at ^ offset_of(units_[at]);
    const bool leaf = has_leaf(units_[at]);
    enter(base);
    if (leaf) check_replacement(value_of(units_[base]), where);
  }
}

void PrecompiledNormalizer::check_replacement(size_t begin, const std::string& where) {
  const std::string_view rest =
      std::string_view(replacements_).substr(std::min(begin, replacements_.size()), kMaxReplacementBytes + 1);
  const size_t length = rest.find('\0');
  check<FileError>(length != std::string_view::npos, where, ": the replacement at byte ", begin, " of ",
                   replacements_.size(), " has no end within ", kMaxReplacementBytes, " bytes");
  check<FileError>(is_valid_utf8(rest.substr(0, length)), where, ": the replacement at byte ", begin,
                   " is not UTF-8");
  growth_ = std::max(growth_, static_cast<double>(length));
}

PrecompiledNormalizer::Replacement PrecompiledNormalizer::find(std::string_view key) const {
  size_t at = offset_of(units_[0]);
  for (char c : key) {
    const uint8_t byte = static_cast<uint8_t>(c);
    at ^= byte;
    const uint32_t found = unit(at);
    if (byte == 0 || label_of(found) != byte) return {};
    at ^= offset_of(found);
    if (!has_leaf(found)) continue;
    const size_t begin = value_of(unit(at));
    return {true, std::string_view(replacements_).substr(begin, replacements_.find('\0', begin) - begin)};
  }
  return {};
}

// Character i of the replacement stands for character i of [begin, end), or for the last one.
void PrecompiledNormalizer::replace(std::string_view replacement, size_t begin, size_t end,
                                    TextRewrite& out) const {
  size_t source = begin;
  for (size_t at = 0; at < replacement.size();) {
    const size_t length = character_at(replacement, at).length;
    out.put(replacement.substr(at, length), source);
    at += length;
    const size_t next = source + character_at(out.source(), source).length;
    if (next < end) source = next;
  }
}

void PrecompiledNormalizer::normalize(AlignedText& text) const {
  TextRewrite out(text);
  const std::string_view source = out.source();
  for (size_t at = 0; at < source.size();) {
    const size_t end = grapheme_end(source, at);
    if (end - at <= kMaxClusterBytes)
      if (const Replacement whole = find(source.substr(at, end - at)); whole.found) {
        replace(whole.text, at, end, out);
        at = end;
        continue;
      }
    while (at < end) {
      const size_t after = at + character_at(source, at).length;
      const Replacement one =
          begins_[static_cast<uint8_t>(source[at])] ? find(source.substr(at, after - at)) : Replacement{};
      if (one.found)
        replace(one.text, at, after, out);
      else
        out.keep(at, after);
      at = after;
    }
  }
  out.finish();
}

namespace {
constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}

std::string decode_base64(std::string_view text, const std::string& where) {
  check<FileError>(text.size() % 4 == 0, where, ": base64 of ", text.size(),
                   " characters, which is no multiple of 4");
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t group = 0;
    int missing = 0;
    for (size_t i = 0; i < 4; ++i) {
      const char c = text[at + i];
      const size_t digit = kBase64.find(c);
      if (c == '=' && at + 4 == text.size() && i >= 2)
        ++missing;
      else
        check<FileError>(digit != std::string_view::npos && missing == 0, where, ": character ", at + i,
                         " is not of base64");
      group = group << 6 | (digit == std::string_view::npos ? 0 : static_cast<uint32_t>(digit));
    }
    for (int i = 0; i < 3 - missing; ++i) bytes.push_back(static_cast<char>(group >> (16 - 8 * i) & 0xFF));
  }
  return bytes;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < count ? static_cast<uint8_t>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text.push_back(i <= count ? kBase64[group >> (18 - 6 * i) & 63] : '=');
  }
  return text;
}

}  // namespace trireme
