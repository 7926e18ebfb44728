// Tokenizers in the files they are published in.
#pragma once

#include <filesystem>

#include "data/tokenizer.h"

namespace trireme {

// `path` is a file, or a folder in which the first of these is read:
//   tokenizer.json
//   vocab.json and merges.txt, or encoder.json and vocab.bpe: byte-level BPE as GPT-2, RoBERTa or Qwen 2
//     publish it, by tokenizer_class of tokenizer_config.json, else RoBERTa's if its special tokens are there
//   vocab.txt: WordPiece as BERT publishes it, with do_lower_case, strip_accents and
//     tokenize_chinese_chars of tokenizer_config.json; without a do_lower_case, text is lower-cased unless
//     a token has an upper-case ASCII letter (special tokens aside)
//   tokenizer.model or spiece.model: SentencePiece. Models of type BPE have a bos token unless
//     tokenizer_config.json says add_bos_token: false; those of type Unigram are ALBERT's, T5's,
//     XLM-RoBERTa's or plain (unigram_tokenizer.h) by its tokenizer_class, else ALBERT's if they have [CLS]
//     and [SEP]
// Of a folder, tokenizer_config.json and special_tokens_map.json (where present; the first counts more) say
// which token has which role; a role whose token is not in the vocabulary is left empty. Throws FileError
// naming the file.
Tokenizer load_tokenizer(const std::filesystem::path& path);

// Writes tokenizer.json, tokenizer_config.json with the roles, and for BERT's tokenizers also vocab.txt, into
// a folder, which is made if need be.
void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& directory);

// A byte-level BPE tokenizer around a model, as GPT-2's is: the parts beside the model.
TokenizerDescription gpt2_description(bool add_prefix_space = false);

}  // namespace trireme
