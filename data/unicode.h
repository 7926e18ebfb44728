// Characters of a UTF-8 text that may be malformed, their Unicode classes, and Unicode normalization
// (utf8proc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// The class a pre-tokenizer's regular expression can ask for: \p{L}, \p{N}, \s (White_Space), or none of
// them. A byte that belongs to no well-formed character is of class kOther.
enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

struct Character {
  uint32_t code_point;  // kNoCodePoint where the byte belongs to no well-formed character
  uint32_t length;      // bytes, 1 to 4
};
constexpr uint32_t kNoCodePoint = 0xFFFFFFFF;

// The character that begins at text[at], strictly (RFC 3629). REQUIRES: at < text.size().
Character character_at(std::string_view text, size_t at);

// Bytes of the character that `text` ends with, 1 where its last byte belongs to no well-formed one.
// REQUIRES: not empty.
size_t last_character_length(std::string_view text);

CharClass char_class(uint32_t code_point);
inline bool is_white_space(uint32_t code_point) { return char_class(code_point) == CharClass::kSpace; }

// What begins at text[at]: its class and bytes in one step, quick for ASCII. REQUIRES: at < text.size().
struct ClassifiedCharacter {
  CharClass cls;
  uint32_t length;
};
ClassifiedCharacter classify_at(std::string_view text, size_t at);

// The bytes of a leading character that `lead` announces: 1 to 4, 1 also for bytes that can lead nothing.
inline uint32_t utf8_length(uint8_t lead) {
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
}

// `text` with each maximal malformed part (Unicode 15, 3.9, "substitution of maximal subparts") made one
// U+FFFD.
std::string replace_malformed_utf8(std::string_view text);

// How many bytes at the front of `text` (which is not well-formed there) make one maximal malformed part; 0
// if they may be the beginning of a character of which the text holds no more. REQUIRES: text is not empty.
size_t malformed_length(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// REQUIRES: text is well-formed.
std::string normalize_unicode(std::string_view text, NormalForm form);
// Appends the lower case of a code point, which may be two.
void append_lowercase(std::string& out, uint32_t code_point);

// Of category Mn, Mc or Me, among the characters of Unicode 9.0: what published tokenizers strip as accents.
bool is_combining_mark(uint32_t code_point);

// Canonical_Combining_Class; 0 for what begins a character.
int combining_class(uint32_t code_point);

// Where the extended grapheme cluster (UAX #29) ends that begins at text[begin], in a well-formed text whose
// clusters before are complete. REQUIRES: begin < text.size().
size_t grapheme_end(std::string_view text, size_t begin);

// What one code point decomposes to, in full (form kNfd or kNfkd); at most 18.
class Decomposition {
 public:
  const uint32_t* begin() const { return points_; }
  const uint32_t* end() const { return points_ + count_; }

 private:
  friend Decomposition decompose_character(uint32_t code_point, NormalForm form);
  uint32_t points_[32];
  size_t count_ = 0;
};
Decomposition decompose_character(uint32_t code_point, NormalForm form);

}  // namespace trireme
