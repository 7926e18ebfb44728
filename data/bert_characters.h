// The classes of characters that BERT's normalization and pre-tokenization ask for (Devlin et al. 2018,
// arXiv:1810.04805), with the characters of Unicode 8.0, which published vocabularies were used with: what
// came later is of no class.
#pragma once

#include <cstdint>

namespace trireme {

enum BertClass : uint8_t {
  kBertRemoved = 1,      // by clean_text: control, format and private-use characters, NUL and U+FFFD
  kBertSpace = 2,        // White_Space
  kBertMark = 4,         // nonspacing marks (Mn), which strip_accents removes
  kBertPunctuation = 8,  // a piece by itself: P*, and ASCII that is neither letter nor digit
  kBertIdeograph = 16,   // of the CJK blocks, a word by itself
};

// The sum of the classes of a code point.
uint8_t bert_class(uint32_t code_point);

}  // namespace trireme
