// SentencePiece's table of character replacements (arXiv:1808.06226, section 3.3), as its .model files and
// "Precompiled" of tokenizer.json hold it: a u32 length, that many bytes of a double-array trie (Yata,
// darts-clone) from sequences of characters to places in the text that follows, where what replaces them
// stands, ended by a NUL.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "data/normalizer.h"

namespace trireme {

class PrecompiledNormalizer final : public Normalizer {
 public:
  static constexpr size_t kMaxBytes = size_t{4} << 20;
  // Throws FileError "where: ..." on: a table above kMaxBytes or cut short, a trie that points outside itself
  // or goes in a circle, a replacement that is not there or not UTF-8.
  PrecompiledNormalizer(std::string_view table, const std::string& where);

  // As Hugging Face's tokenizers do: a grapheme cluster below 6 bytes that begins with an entry is replaced
  // as a whole, by the shortest such entry's replacement; else its characters are, one by one.
  void normalize(AlignedText& text) const override;
  double growth() const override { return growth_; }

 private:
  struct Replacement {
    bool found = false;
    std::string_view text;
  };
  uint32_t unit(size_t at) const { return at < units_.size() ? units_[at] : 0; }
  Replacement find(std::string_view key) const;
  void replace(std::string_view replacement, size_t begin, size_t end, TextRewrite& out) const;
  void check_trie(const std::string& where);
  void check_replacement(size_t begin, const std::string& where);

  std::vector<uint32_t> units_;
  std::string replacements_;
  std::array<bool, 256> begins_{};  // bytes that begin an entry
  double growth_ = 1;
};

// Of the text of "precompiled_charsmap": standard base64 with padding. Throws FileError "where: ...".
std::string decode_base64(std::string_view text, const std::string& where);
std::string encode_base64(std::string_view bytes);

}  // namespace trireme
