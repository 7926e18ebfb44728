#include "data/normalizer.h"

#include <algorithm>
#include <vector>

#include "base/json.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr size_t kMaxPrefixBytes = 64;

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  void normalize(std::string& text) const override {
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
  void normalize(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void normalize(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    size_t at = 0;
    for (size_t found = text.find(from_); found != std::string::npos; found = text.find(from_, at)) {
      out.append(text, at, found - at).append(to_);
      at = found + from_.size();
    }
    if (at == 0) return;
    text = out.append(text, at);
  }
  double growth() const override {
    return std::max(1.0, static_cast<double>(to_.size()) / static_cast<double>(from_.size()));
  }

 private:
  std::string from_, to_;
};

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void normalize(std::string& text) const override {
    for (char c : text)
      if (static_cast<signed char>(c) < 0) {  // ASCII is in every normal form
        text = normalize_unicode(text, form_);
        return;
      }
  }

 private:
  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  void normalize(std::string& text) const override { text = lowercase_unicode(text); }
};

// Removes white space at either end.
class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void normalize(std::string& text) const override {
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
    text = begin < end ? text.substr(begin, end - begin) : "";
  }

 private:
  bool left_, right_;
};

std::unique_ptr<Normalizer> make_replace(const JsonObject& config) {
  const JsonObject pattern = config.object("pattern");
  if (const auto regex = pattern.optional_string("Regex"))
    pattern.fail("Regex", "is \"" + *regex + "\"; only the form String is supported");
  const std::string from = pattern.string("String");
  if (from.empty()) pattern.fail("String", "is empty");
  return std::make_unique<Replace>(from, config.string("content"));
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
