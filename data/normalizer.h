// Rewrites a text before it is cut into pieces. Built from, and described by, the "normalizer" object of a
// tokenizer.json.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>

#include "data/aligned_text.h"

namespace trireme {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // REQUIRES: text is well-formed UTF-8. Leaves it so. An empty text stays empty.
  // In a tracked text, what replaces a character stands for what it stood for, what replaces several for what
  // the last did; what is put in front of one, for the same; of characters that NFC and NFKC compose, each
  // stands for all that was composed. (As in Hugging Face's tokenizers, but for NFC and NFKC, and Precompiled
  // where it removes the first character of a text, which misplaces what follows there.)
  virtual void normalize(AlignedText& text) const = 0;
  // How many bytes at most a byte becomes by replacements, so that files cannot ask for memory without bound.
  virtual double growth() const { return 1; }
};

constexpr double kMaxTextGrowth = 1024;

// `config` is the object of the file; `where` and `path` name it in messages. Types: Sequence, Prepend,
// Replace (of a string, or of the pattern " {2,}"), NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Lowercase, Strip,
// StripAccents, BertNormalizer. Throws FileError naming any other type, and
// on a growth above kMaxTextGrowth.
std::unique_ptr<Normalizer> make_normalizer(const boost::json::object& config, const std::string& where,
                                            const std::string& path = "normalizer");

}  // namespace trireme
