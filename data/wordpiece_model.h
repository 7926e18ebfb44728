// WordPiece (Schuster & Nakajima 2012; as BERT has it, Devlin et al. 2018, arXiv:1810.04805): a word is cut,
// from its front, into the longest tokens there are; those that do not begin the word have a prefix ("##"). A
// word that cannot be cut so is one unknown token.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/token_model.h"
#include "data/token_trie.h"
#include "data/word_cache.h"

namespace trireme {

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  int64_t max_input_chars_per_word = 100;  // longer words are unknown
};

class WordPieceModel final : public TokenModel {
 public:
  // Throws FileError "where: ..." if unk_token is no token, or a token is longer than TokenTrie allows.
  WordPieceModel(Vocabulary vocabulary, WordPieceOptions options, const std::string& where);

  void encode(const Pieces& pieces, std::vector<int32_t>& ids) const override;
  void encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::optional<std::string> unk_token() const override { return options_.unk_token; }
  boost::json::object to_json() const override;
  // The text of a vocab.txt that reads back to this model; nothing if there is none, because ids have gaps,
  // tokens hold line ends, or options are not BERT's.
  std::optional<std::string> vocab_txt() const;

 private:
  Vocabulary vocabulary_;
  WordPieceOptions options_;
  int32_t unk_id_;
  TokenTrie begins_, continues_;
  ScratchPool<WordCache> cache_;
};

// From the "model" object of a tokenizer.json.
std::unique_ptr<TokenModel> read_wordpiece_model(const JsonObject& model);

// From the text of a vocab.txt: a token a line, whose id is the line's number from 0. Throws FileError naming
// the line on one that is empty, not UTF-8 or there twice.
std::unique_ptr<TokenModel> read_vocab_txt(std::string_view text, const std::string& where);

}  // namespace trireme
