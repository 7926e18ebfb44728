// A text under change, and for each of its bytes the bytes of the original text that it stands for.
// Normalizers and pre-tokenizers work on it; keeping the record is optional, and costs nothing where it is
// not kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// Bytes [begin, end).
struct ByteRange {
  uint32_t begin = 0, end = 0;
  bool operator==(const ByteRange&) const = default;
};

class AlignedText {
 public:
  AlignedText() = default;
  explicit AlignedText(std::string text) : text_(std::move(text)) {}
  // With the record: each byte stands for the character it belongs to, counted from the beginning of
  // `original`. Each maximal malformed part becomes one U+FFFD that stands for it, or, with keep_malformed,
  // stays and stands for itself byte by byte. REQUIRES: original is below 4 GiB.
  static AlignedText tracked(std::string_view original, bool keep_malformed);

  const std::string& text() const { return text_; }
  bool is_tracked() const { return tracked_; }
  // What the bytes [begin, end) of the text stand for: from the first one's beginning to the last one's end.
  // Of no bytes, an empty range. REQUIRES: is_tracked().
  ByteRange original(size_t begin, size_t end) const;
  AlignedText part(size_t begin, size_t end) const;
  // The text with its record dropped.
  std::string release() && { return std::move(text_); }

 private:
  friend class TextRewrite;
  std::string text_;
  std::vector<ByteRange> stands_for_;  // one a byte of text_, if tracked_
  bool tracked_ = false;
};

// Builds what replaces a text, from its front to its end:
//
//   TextRewrite out(text);
//   out.keep(0, 5);        // bytes 0 to 5 stay
//   out.put("a", 5);       // "a" stands for what byte 5 stood for
//   out.finish();
class TextRewrite {
 public:
  // `text` must outlive this and is unchanged until finish().
  explicit TextRewrite(AlignedText& text) : from_(text) {
    to_.tracked_ = text.tracked_;
    to_.text_.reserve(text.text_.size() + 16);
    if (text.tracked_) to_.stands_for_.reserve(text.text_.size() + 16);
  }
  std::string_view source() const { return from_.text_; }
  size_t size() const { return to_.text_.size(); }
  // The bytes [begin, end) of the source.
  void keep(size_t begin, size_t end) {
    to_.text_.append(from_.text_, begin, end - begin);
    if (to_.tracked_)
      to_.stands_for_.insert(to_.stands_for_.end(),
                             from_.stands_for_.begin() + static_cast<std::ptrdiff_t>(begin),
                             from_.stands_for_.begin() + static_cast<std::ptrdiff_t>(end));
  }
  void put(char byte, size_t at) {
    to_.text_.push_back(byte);
    if (to_.tracked_) to_.stands_for_.push_back(from_.stands_for_[at]);
  }
  // Bytes that stand for what byte `at` of the source stood for, or bytes [at, end).
  void put(std::string_view bytes, size_t at) { put(bytes, at, at + 1); }
  void put(std::string_view bytes, size_t at, size_t end) {
    to_.text_.append(bytes);
    if (to_.tracked_) to_.stands_for_.resize(to_.text_.size(), from_.original(at, end));
  }
  void finish() { from_ = std::move(to_); }

 private:
  AlignedText& from_;
  AlignedText to_;
};

}  // namespace trireme
