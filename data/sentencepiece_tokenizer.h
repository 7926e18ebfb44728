// A tokenizer from a SentencePiece model of type BPE; unigram_tokenizer.h is for the other type.
#pragma once

#include "data/sentencepiece_file.h"
#include "data/tokenizer.h"

namespace trireme {

// Control and user-defined pieces become added tokens, so that they are also found when written in a text; a
// space is put in front of each section between them (add_dummy_prefix). `add_bos` and `add_eos` shape the
// template. Throws FileError "where: ..." on model types other than BPE, unused pieces, white space as suffix
// or unescaped, and normalizations that make_normalizer() does not know.
Tokenizer sentencepiece_tokenizer(const SentencePieceFile& file, bool add_bos, bool add_eos,
                                  const std::string& where);

}  // namespace trireme
