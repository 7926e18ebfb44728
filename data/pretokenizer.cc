#include "data/pretokenizer.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/json.h"
#include "data/bert_characters.h"
#include "data/pretokenizer_scan.h"
#include "data/unicode.h"

namespace trireme {

namespace {

// Rebuilds `pieces.ends` by giving each piece to cut(piece, base, ends), which appends its own ends.
template <class Cut>
void cut_each(Pieces& pieces, Cut&& cut) {
  std::vector<size_t> ends;
  ends.reserve(pieces.ends.size() + pieces.text().size() / 4);
  size_t begin = 0;
  for (size_t end : pieces.ends) {
    if (end > begin) cut(std::string_view(pieces.text()).substr(begin, end - begin), begin, ends);
    begin = end;
  }
  pieces.ends = std::move(ends);
}

// Rebuilds the text by giving each piece that is not empty to change(out, begin, end), which puts into `out`
// what replaces the bytes [begin, end).
template <class Change>
void change_each(Pieces& pieces, Change&& change) {
  TextRewrite out(pieces.aligned);
  size_t begin = 0;
  for (size_t& end : pieces.ends) {
    if (end > begin) change(out, begin, end);
    begin = end;
    end = out.size();
  }
  out.finish();
}

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void split(Pieces& pieces) const override {
    for (const auto& part : parts_) part->split(pieces);
  }
  bool byte_level() const override {
    for (const auto& part : parts_)
      if (part->byte_level()) return true;
    return false;
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex) {}
  void split(Pieces& pieces) const override {
    if (add_prefix_space_)
      change_each(pieces, [](TextRewrite& out, size_t begin, size_t end) {
        if (out.source()[begin] != ' ') out.put(' ', begin);
        out.keep(begin, end);
      });
    if (use_regex_)
      cut_each(pieces, [](std::string_view piece, size_t base, std::vector<size_t>& ends) {
        scan_gpt2(piece, base, ends);
      });
  }
  bool byte_level() const override { return true; }

 private:
  bool add_prefix_space_, use_regex_;
};

// Spaces become the replacement character, one is put in front (unless there is one), and a piece begins at
// each.
class Metaspace final : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void split(Pieces& pieces) const override {
    change_each(pieces, [&](TextRewrite& out, size_t begin, size_t end) {
      const std::string_view piece = out.source().substr(begin, end - begin);
      const bool wanted =
          prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && pieces.at_start && begin == 0);
      if (wanted && piece.front() != ' ' && !piece.starts_with(replacement_)) out.put(replacement_, begin);
      size_t at = 0;
      for (size_t space = piece.find(' '); space != std::string_view::npos; space = piece.find(' ', at)) {
        out.keep(begin + at, begin + space);
        out.put(replacement_, begin + space);
        at = space + 1;
      }
      out.keep(begin + at, end);
    });
    if (!split_) return;
    cut_each(pieces, [&](std::string_view piece, size_t base, std::vector<size_t>& ends) {
      for (size_t at = piece.find(replacement_, 1); at != std::string_view::npos;
           at = piece.find(replacement_, at + 1))
        ends.push_back(base + at);
      ends.push_back(base + piece.size());
    });
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

class SplitByPattern final : public PreTokenizer {
 public:
  explicit SplitByPattern(std::string_view pattern)
      : gpt2_(pattern == kGpt2Pattern), max_digits_(pattern == kCl100kPattern ? 3 : 1) {}
  static bool knows(std::string_view pattern) {
    return pattern == kGpt2Pattern || pattern == kCl100kPattern || pattern == kQwen2Pattern;
  }
  void split(Pieces& pieces) const override {
    cut_each(pieces, [&](std::string_view piece, size_t base, std::vector<size_t>& ends) {
      gpt2_ ? scan_gpt2(piece, base, ends) : scan_cl100k(piece, base, max_digits_, ends);
    });
  }

 private:
  bool gpt2_;
  int max_digits_;
};

enum class Delimiter { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext };

// Cuts around delimiters: find(piece, at) gives the next one at or after `at` as [begin, end), or nothing.
template <class Find>
void split_around(Pieces& pieces, Delimiter delimiter, Find&& find) {
  TextRewrite kept(pieces.aligned);  // kRemoved alone changes the text
  std::vector<size_t> ends;
  size_t begin = 0;
  for (size_t end : pieces.ends) {
    const std::string_view piece = std::string_view(pieces.text()).substr(begin, end - begin);
    for (size_t at = 0, from = 0; from < piece.size();) {
      const auto found = at < piece.size() ? find(piece, at) : std::nullopt;
      const size_t cut = found ? found->first : piece.size(), after = found ? found->second : piece.size();
      switch (delimiter) {
        case Delimiter::kIsolated:
          if (cut > from) ends.push_back(begin + cut);
          if (found) ends.push_back(begin + after);
          from = after;
          break;
        case Delimiter::kRemoved:
          if (cut > from) {
            kept.keep(begin + from, begin + cut);
            ends.push_back(kept.size());
          }
          from = after;
          break;
        case Delimiter::kMergedWithPrevious:
          ends.push_back(begin + after);
          from = after;
          break;
        case Delimiter::kMergedWithNext:
          if (cut > from) ends.push_back(begin + cut);
          from = cut;
          break;
      }
      at = after;
    }
    begin = end;
  }
  if (delimiter == Delimiter::kRemoved) kept.finish();
  pieces.ends = std::move(ends);
}

using Range = std::optional<std::pair<size_t, size_t>>;

class SplitByString final : public PreTokenizer {
 public:
  SplitByString(std::string delimiter, Delimiter behaviour)
      : string_(std::move(delimiter)), behaviour_(behaviour) {}
  void split(Pieces& pieces) const override {
    split_around(pieces, behaviour_, [&](std::string_view piece, size_t at) -> Range {
      const size_t found = piece.find(string_, at);
      if (found == std::string_view::npos) return std::nullopt;
      return Range({found, found + string_.size()});
    });
  }

 private:
  std::string string_;
  Delimiter behaviour_;
};

// Cuts around runs of one class of characters, or around each single character of it.
class SplitByClass final : public PreTokenizer {
 public:
  SplitByClass(CharClass cls, bool single, Delimiter behaviour)
      : cls_(cls), single_(single), behaviour_(behaviour) {}
  void split(Pieces& pieces) const override {
    split_around(pieces, behaviour_, [&](std::string_view piece, size_t at) -> Range {
      size_t begin = piece.size();
      while (at < piece.size()) {
        const ClassifiedCharacter c = classify_at(piece, at);
        const bool hit = c.cls == cls_;
        if (!hit && begin < piece.size()) break;
        if (hit && begin == piece.size()) begin = at;
        at += c.length;
        if (hit && single_) break;
      }
      if (begin == piece.size()) return std::nullopt;
      return Range({begin, at});
    });
  }

 private:
  CharClass cls_;
  bool single_;
  Delimiter behaviour_;
};

// White space goes, and each punctuation mark is a piece.
class Bert final : public PreTokenizer {
 public:
  void split(Pieces& pieces) const override {
    TextRewrite out(pieces.aligned);
    std::vector<size_t> ends;
    ends.reserve(pieces.ends.size() + pieces.text().size() / 4);
    size_t begin = 0;
    for (size_t end : pieces.ends) {
      split_piece(begin, end, out, ends);
      begin = end;
    }
    out.finish();
    pieces.ends = std::move(ends);
  }

 private:
  static void split_piece(size_t begin, size_t end, TextRewrite& out, std::vector<size_t>& ends) {
    const std::string_view source = out.source();
    const auto put = [&](size_t to) {
      if (begin == to) return;
      out.keep(begin, to);
      ends.push_back(out.size());
    };
    for (size_t at = begin; at < end;) {
      const Character c = character_at(source, at);
      const size_t after = at + c.length;
      const uint8_t cls = bert_class(c.code_point);
      if (cls & (kBertSpace | kBertPunctuation)) {
        put(at);
        begin = at;
        if (cls & kBertPunctuation) put(after);
        begin = after;
      }
      at = after;
    }
    put(end);
  }
};

std::unique_ptr<PreTokenizer> make_split(const JsonObject& config) {
  const std::string behaviour = config.string("behavior");
  const bool invert = config.boolean_or("invert", false);
  const JsonObject pattern = config.object("pattern");
  if (const auto regex = pattern.optional_string("Regex")) {
    if (!SplitByPattern::knows(*regex))
      pattern.fail("Regex", "is \"" + *regex +
                                "\"; only the patterns of GPT-2, cl100k (Llama 3) and Qwen 2 are known");
    // These match every character, so that "keep what matches" and "cut around what matches" are the same.
    if (behaviour != "Isolated" && !(behaviour == "Removed" && invert))
      config.fail("behavior",
                  "is \"" + behaviour + "\"; this pattern is known as \"Isolated\" or inverted \"Removed\"");
    return std::make_unique<SplitByPattern>(*regex);
  }
  const std::string string = pattern.string("String");
  if (string.empty()) pattern.fail("String", "is empty");
  if (invert) config.fail("invert", "is true, which is not supported with a string");
  static const std::map<std::string, Delimiter> kBehaviours = {
      {"Isolated", Delimiter::kIsolated},
      {"Removed", Delimiter::kRemoved},
      {"MergedWithPrevious", Delimiter::kMergedWithPrevious},
      {"MergedWithNext", Delimiter::kMergedWithNext}};
  const auto known = kBehaviours.find(behaviour);
  if (known == kBehaviours.end()) config.fail("behavior", "\"" + behaviour + "\" is not supported");
  return std::make_unique<SplitByString>(string, known->second);
}

std::unique_ptr<PreTokenizer> make_metaspace(const JsonObject& config) {
  const std::string replacement = config.string_or("replacement", "\xE2\x96\x81");
  if (replacement.empty() || character_at(replacement, 0).length != replacement.size())
    config.fail("replacement", "must be one character");
  // Before prepend_scheme there was add_prefix_space.
  std::string scheme = config.boolean_or("add_prefix_space", true) ? "always" : "never";
  scheme = config.string_or("prepend_scheme", scheme);
  using Prepend = Metaspace::Prepend;
  if (scheme != "always" && scheme != "first" && scheme != "never")
    config.fail("prepend_scheme", "is \"" + scheme + "\"; it must be always, first or never");
  return std::make_unique<Metaspace>(replacement,
                                     scheme == "always"  ? Prepend::kAlways
                                     : scheme == "first" ? Prepend::kFirst
                                                         : Prepend::kNever,
                                     config.boolean_or("split", true));
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const boost::json::object& object, const std::string& where,
                                                 const std::string& path) {
  const JsonObject config(object, where, path);
  const std::string type = config.string("type");
  if (type == "Sequence") {
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    for (const auto& part : config.array("pretokenizers")) {
      const std::string name = path + ".pretokenizers[" + std::to_string(parts.size()) + "]";
      // What follows it would see the byte alphabet in place of the text.
      if (!parts.empty() && parts.back()->byte_level())
        config.fail("pretokenizers", "must have ByteLevel last");
      parts.push_back(make_pre_tokenizer(JsonObject(part, where, name).raw(), where, name));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "ByteLevel")
    return std::make_unique<ByteLevel>(config.boolean_or("add_prefix_space", true),
                                       config.boolean_or("use_regex", true));
  if (type == "BertPreTokenizer") return std::make_unique<Bert>();
  if (type == "Metaspace") return make_metaspace(config);
  if (type == "Split") return make_split(config);
  if (type == "Digits")
    return std::make_unique<SplitByClass>(CharClass::kNumber, config.boolean_or("individual_digits", false),
                                          Delimiter::kIsolated);
  if (type == "WhitespaceSplit")
    return std::make_unique<SplitByClass>(CharClass::kSpace, true, Delimiter::kRemoved);
  config.fail("type", "\"" + type + "\" is not supported");
}

}  // namespace trireme
