#include "data/normalizer.h"

#include <algorithm>
#include <vector>

#include "base/json.h"
#include "base/utf8.h"
#include "data/bert_normalizer.h"
#include "data/precompiled_normalizer.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr size_t kMaxPrefixBytes = 64;

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  void normalize(AlignedText& text) const override {
    for (const auto& part : parts_) part->normalize(text);
  }
  double growth() const override {
    double product = 1;
    for (const auto& part : parts_) product *= part->growth();
    return product;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void normalize(AlignedText& text) const override {
    if (text.text().empty()) return;
    TextRewrite out(text);
    out.put(prefix_, 0);
    out.keep(0, text.text().size());
    out.finish();
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void normalize(AlignedText& text) const override {
    const std::string& source = text.text();
    size_t found = source.find(from_);
    if (found == std::string::npos) return;
    TextRewrite out(text);
    size_t at = 0;
    for (; found != std::string::npos; found = source.find(from_, at)) {
      out.keep(at, found);
      at = found + from_.size();
      out.put(to_, at - 1);
    }
    out.keep(at, source.size());
    out.finish();
  }
  double growth() const override {
    return std::max(1.0, static_cast<double>(to_.size()) / static_cast<double>(from_.size()));
  }

 private:
  std::string from_, to_;
};

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void normalize(AlignedText& text) const override {
    if (is_ascii(text.text())) return;  // which is in every normal form
    if (!text.is_tracked())
      text = AlignedText(normalize_unicode(text.text(), form_));
    else if (form_ == NormalForm::kNfd || form_ == NormalForm::kNfkd)
      decompose(text);
    else
      compose(text);
  }

 private:
  struct Part {
    uint32_t code_point;
    int combining_class;
    size_t at;
  };

  // Each part stands for the character it is part of; where marks change places, by their places.
  void decompose(AlignedText& text) const {
    std::vector<Part> parts;
    const std::string& source = text.text();
    for (size_t at = 0; at < source.size();) {
      const Character c = character_at(source, at);
      for (const uint32_t part : decompose_character(c.code_point, form_))
        parts.push_back({part, combining_class(part), at});
      at += c.length;
    }
    TextRewrite out(text);
    std::string utf8;
    for (size_t begin = 0, end; begin < parts.size(); begin = end) {
      for (end = begin + 1; end < parts.size() && parts[end].combining_class != 0;) ++end;
      const size_t marks = parts[begin].combining_class == 0 ? begin + 1 : begin;
      std::vector<Part> sorted(parts.begin() + static_cast<std::ptrdiff_t>(marks),
                               parts.begin() + static_cast<std::ptrdiff_t>(end));
      std::stable_sort(sorted.begin(), sorted.end(),
                       [](const Part& a, const Part& b) { return a.combining_class < b.combining_class; });
      for (size_t i = begin; i < end; ++i) {
        utf8.clear();
        append_utf8(utf8, i < marks ? parts[i].code_point : sorted[i - marks].code_point);
        out.put(utf8, parts[i].at);
      }
    }
    out.finish();
  }

  // Cuts the text where a character neither changes nor is changed by what stands before it.
  void compose(AlignedText& text) const {
    TextRewrite out(text);
    const std::string_view source = out.source();
    size_t begin = 0;
    const auto normal = [&](size_t first, size_t last) {
      return normalize_unicode(source.substr(first, last - first), form_);
    };
    for (size_t at = 0; at < source.size();) {
      const Character c = character_at(source, at);
      const size_t after = at + c.length;
      if (at > begin && combining_class(c.code_point) == 0) {
        const std::string before = normal(begin, at);
        if (normal(begin, after) == before + normal(at, after)) {
          out.put(before, begin, at);
          begin = at;
        }
      }
      at = after;
    }
    out.put(normal(begin, source.size()), begin, source.size());
    out.finish();
  }

  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  void normalize(AlignedText& text) const override {
    TextRewrite out(text);
    const std::string_view source = out.source();
    std::string lower;
    for (size_t at = 0; at < source.size();) {
      const char byte = source[at];
      if (static_cast<signed char>(byte) >= 0) {
        out.put(byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte, at);
        ++at;
        continue;
      }
      const Character c = character_at(source, at);
      lower.clear();
      append_lowercase(lower, c.code_point);
      out.put(lower, at);
      at += c.length;
    }
    out.finish();
  }
};

// Removes white space at either end.
class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void normalize(AlignedText& aligned) const override {
    const std::string& text = aligned.text();
    size_t begin = text.size(), end = 0;
    for (size_t at = 0; at < text.size();) {
      const ClassifiedCharacter c = classify_at(text, at);
      if (c.cls != CharClass::kSpace) {
        if (begin == text.size()) begin = at;
        end = at + c.length;
      }
      at += c.length;
    }
    if (!left_ && end > 0) begin = 0;
    if (!right_) end = text.size();
    aligned = begin < end ? aligned.part(begin, end) : aligned.part(0, 0);
  }

 private:
  bool left_, right_;
};

// Removes nonspacing marks; it is for decomposed text.
class StripAccents final : public Normalizer {
 public:
  void normalize(AlignedText& text) const override {
    if (is_ascii(text.text())) return;
    TextRewrite out(text);
    const std::string_view source = out.source();
    for (size_t at = 0; at < source.size();) {
      const Character c = character_at(source, at);
      if (!is_combining_mark(c.code_point)) out.keep(at, at + c.length);
      at += c.length;
    }
    out.finish();
  }
};

// Two spaces or more become one content: the regular expression " {2,}", which published files of
// SentencePiece models hold.
class CollapseSpaces final : public Normalizer {
 public:
  explicit CollapseSpaces(std::string content) : content_(std::move(content)) {}
  void normalize(AlignedText& text) const override {
    const std::string& source = text.text();
    size_t found = source.find("  ");
    if (found == std::string::npos) return;
    TextRewrite out(text);
    size_t at = 0;
    for (; found != std::string::npos; found = source.find("  ", at)) {
      out.keep(at, found);
      at = std::min(source.find_first_not_of(' ', found), source.size());
      out.put(content_, at - 1);
    }
    out.keep(at, source.size());
    out.finish();
  }
  double growth() const override { return std::max(1.0, static_cast<double>(content_.size()) / 2); }

 private:
  std::string content_;
};

// SentencePiece's "nmt": some control characters vanish, some others and unusual spaces become a space.
class Nmt final : public Normalizer {
 public:
  void normalize(AlignedText& text) const override {
    TextRewrite out(text);
    const std::string_view source = out.source();
    for (size_t at = 0; at < source.size();) {
      const Character c = character_at(source, at);
      const size_t after = at + c.length;
      if (becomes_space(c.code_point))
        out.put(' ', at);
      else if (!vanishes(c.code_point))
        out.keep(at, after);
      at = after;
    }
    out.finish();
  }

 private:
  static bool vanishes(uint32_t c) {
    return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
  }
  static bool becomes_space(uint32_t c) {
    return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
  }
};

std::unique_ptr<Normalizer> make_replace(const JsonObject& config) {
  const JsonObject pattern = config.object("pattern");
  const std::string content = config.string("content");
  if (const auto regex = pattern.optional_string("Regex")) {
    if (*regex != " {2,}")
      pattern.fail("Regex", "is \"" + *regex + "\"; only \" {2,}\" and the form String are supported");
    return std::make_unique<CollapseSpaces>(content);
  }
  const std::string from = pattern.string("String");
  if (from.empty()) pattern.fail("String", "is empty");
  return std::make_unique<Replace>(from, content);
}

std::unique_ptr<Normalizer> make_checked(const boost::json::object& object, const std::string& where,
                                         const std::string& path);

std::unique_ptr<Normalizer> make(const JsonObject& config, const std::string& where,
                                 const std::string& path) {
  const std::string type = config.string("type");
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (const auto& part : config.array("normalizers")) {
      const std::string name = path + ".normalizers[" + std::to_string(parts.size()) + "]";
      parts.push_back(make_checked(JsonObject(part, where, name).raw(), where, name));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "Prepend") {
    const std::string prefix = config.string("prepend");
    if (prefix.size() > kMaxPrefixBytes) config.fail("prepend", "is longer than 64 bytes");
    return std::make_unique<Prepend>(prefix);
  }
  if (type == "Replace") return make_replace(config);
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip")
    return std::make_unique<Strip>(config.boolean_or("strip_left", true),
                                   config.boolean_or("strip_right", true));
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "Precompiled") {
    const std::string name = where + ": " + config.path_of("precompiled_charsmap");
    return std::make_unique<PrecompiledNormalizer>(decode_base64(config.string("precompiled_charsmap"), name),
                                                   name);
  }
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "BertNormalizer") {
    const bool lowercase = config.boolean_or("lowercase", true);
    return std::make_unique<BertNormalizer>(
        BertNormalization{.clean_text = config.boolean_or("clean_text", true),
                          .handle_chinese_chars = config.boolean_or("handle_chinese_chars", true),
                          .strip_accents = config.boolean_or("strip_accents", lowercase),
                          .lowercase = lowercase});
  }
  config.fail("type", "\"" + type + "\" is not supported");
}

std::unique_ptr<Normalizer> make_checked(const boost::json::object& object, const std::string& where,
                                         const std::string& path) {
  const JsonObject config(object, where, path);
  std::unique_ptr<Normalizer> made = make(config, where, path);
  if (made->growth() > kMaxTextGrowth)
    config.fail("type", "is a replacement that can make a text more than 1024 times as long");
  return made;
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const boost::json::object& config, const std::string& where,
                                            const std::string& path) {
  return make_checked(config, where, path);
}

}  // namespace trireme
