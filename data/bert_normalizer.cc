#include "data/bert_normalizer.h"

#include <algorithm>
#include <vector>

#include "base/utf8.h"
#include "data/bert_characters.h"
#include "data/unicode.h"

namespace trireme {

namespace {

// What becomes of the characters beyond ASCII.
class Rest {
 public:
  Rest(const BertNormalization& options, TextRewrite& out) : options_(options), out_(out) {}

  void add(uint32_t c, size_t at) {
    const uint8_t cls = bert_class(c);
    if (options_.clean_text && (cls & kBertRemoved)) return;
    const bool spaced = options_.handle_chinese_chars && (cls & kBertIdeograph);
    if (options_.clean_text && (cls & kBertSpace)) c = ' ';
    if (spaced) add_final(' ', at);
    if (!options_.strip_accents)
      add_final(c, at);
    else
      for (const uint32_t part : decompose_character(c, NormalForm::kNfd)) add_decomposed(part, at);
    if (spaced) add_final(' ', at);
  }

  // Puts out the marks that are held back.
  void flush() {
    if (marks_.empty()) return;
    std::vector<Mark> sorted = marks_;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
    std::vector<Mark> marks = std::move(marks_);
    marks_.clear();
    for (size_t i = 0; i < sorted.size(); ++i) put(sorted[i].code_point, marks[i].at);
  }

 private:
  struct Mark {
    uint32_t code_point;
    int combining_class;
    size_t at;
  };

  // Canonical order, of what is not removed: few marks are left, and they seldom stand side by side.
  void add_decomposed(uint32_t c, size_t at) {
    if (c >= 128) {
      if (bert_class(c) & kBertMark) return;
      if (const int combining = combining_class(c)) {
        marks_.push_back({c, combining, at});
        return;
      }
    }
    add_final(c, at);
  }
  void add_final(uint32_t c, size_t at) {
    flush();
    put(c, at);
  }
  void put(uint32_t c, size_t at) {
    buffer_.clear();
    if (options_.lowercase)
      append_lowercase(buffer_, c);
    else
      append_utf8(buffer_, c);
    out_.put(buffer_, at);
  }

  const BertNormalization& options_;
  TextRewrite& out_;
  std::vector<Mark> marks_;
  std::string buffer_;
};

}  // namespace

BertNormalizer::BertNormalizer(BertNormalization options) : options_(options) {
  for (int i = 0; i < 128; ++i) {
    char c = static_cast<char>(i);
    const uint8_t cls = bert_class(static_cast<uint32_t>(i));
    if (options_.lowercase && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (options_.clean_text && (cls & kBertRemoved))
      c = '\0';
    else if (options_.clean_text && (cls & kBertSpace))
      c = ' ';
    ascii_[static_cast<size_t>(i)] = c;
  }
}

void BertNormalizer::normalize(AlignedText& text) const {
  TextRewrite out(text);
  Rest rest(options_, out);
  const std::string_view source = out.source();
  for (size_t at = 0; at < source.size();) {
    const uint8_t byte = static_cast<uint8_t>(source[at]);
    if (byte < 128) {
      const char c = ascii_[byte];
      if (c != '\0' || !options_.clean_text) {
        rest.flush();
        out.put(c, at);
      }
      ++at;
      continue;
    }
    const Character c = character_at(source, at);
    rest.add(c.code_point, at);
    at += c.length;
  }
  rest.flush();
  out.finish();
}

}  // namespace trireme
