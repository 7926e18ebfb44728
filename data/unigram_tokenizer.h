// A tokenizer from a SentencePiece model of type Unigram, in the forms that published models give it.
#pragma once

#include "data/sentencepiece_file.h"
#include "data/tokenizer.h"

namespace trireme {

enum class UnigramFamily {
  kPlain,   // the file's own normalization; a bos and an eos token around a text, as asked
  kAlbert,  // Lan et al. 2019, arXiv:1909.11942: BERT's template, `` and '' as quotes, lower case, no accents
  kT5,  // Raffel et al. 2019, arXiv:1910.10683: an eos token, and tokens <extra_id_N> behind the vocabulary
  kXlmRoberta,  // Conneau et al. 2019, arXiv:1911.02116: RoBERTa's template; ids moved by one behind <pad>
};

struct UnigramUse {
  UnigramFamily family = UnigramFamily::kPlain;
  bool add_bos = false, add_eos = false;  // kPlain
  bool lowercase = true;                  // kAlbert
  bool keep_accents = false;              // kAlbert
  int64_t extra_ids = 100;                // kT5
};

// Throws FileError "where: ..." on a file that is no Unigram model, on unused pieces, white space as suffix
// or unescaped, a damaged table of replacements, and where the family's own tokens are not there.
Tokenizer unigram_tokenizer(const SentencePieceFile& file, const UnigramUse& use, const std::string& where);

}  // namespace trireme
