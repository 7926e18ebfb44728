// Cuts a normalized text into the pieces within which a token model works. Built from, and described by, the
// "pre_tokenizer" object of a tokenizer.json.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/aligned_text.h"

namespace trireme {

// A text on its way to the token model. Piece i is text()[ends[i-1], ends[i]); the ends ascend and the last
// is text().size(); empty pieces may occur. A section is what stands between two special tokens, or all of
// the text.
struct Pieces {
  AlignedText aligned;
  std::vector<size_t> ends;
  bool at_start = true;  // the section is the beginning of what the user gave

  explicit Pieces(AlignedText section, bool is_at_start = true)
      : aligned(std::move(section)), at_start(is_at_start) {
    if (!text().empty()) ends.push_back(text().size());
  }
  explicit Pieces(std::string section, bool is_at_start = true)
      : Pieces(AlignedText(std::move(section)), is_at_start) {}

  const std::string& text() const { return aligned.text(); }

  // Calls visit(std::string_view) for each piece that is not empty.
  template <class Visit>
  void for_each(Visit&& visit) const {
    size_t begin = 0;
    for (size_t end : ends) {
      if (end > begin) visit(std::string_view(text()).substr(begin, end - begin));
      begin = end;
    }
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Cuts each piece further; may change the text. In a tracked text, what is put in front of a character
  // stands for the same as it does.
  virtual void split(Pieces& pieces) const = 0;
  // The pieces are bytes of any value, which the model's vocabulary spells in the byte alphabet
  // (byte_alphabet.h).
  virtual bool byte_level() const { return false; }
};

// `config` is the object of the file; `where` and `path` name it in messages. Types: Sequence, ByteLevel,
// Metaspace, Split (by a literal string, or by one of the patterns in pretokenizer_scan.h, recognised by
// their exact text), Digits, WhitespaceSplit, BertPreTokenizer. Throws FileError naming any other type or
// pattern.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const boost::json::object& config, const std::string& where,
                                                 const std::string& path = "pre_tokenizer");

}  // namespace trireme
