// The unigram language model over subwords (Kudo 2018, arXiv:1804.10959; SentencePiece, arXiv:1808.06226): of
// all ways to cut a piece into tokens, the one with the greatest sum of scores.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/token_model.h"
#include "data/token_trie.h"
#include "data/word_cache.h"

namespace trireme {

struct UnigramOptions {
  int32_t unk_id = 0;
  bool byte_fallback = false;  // a run of unknown characters becomes its bytes' tokens <0x00> to <0xFF>
};

// A character that is no token costs the smallest score minus 10. Neighbouring characters of that kind are
// one unknown token. Of ways with one sum, the one that was found first, from the front, as published
// implementations do.
class UnigramModel final : public TokenModel {
 public:
  // scores[id] is that of the token. Throws FileError "where: ..." if unk_id is no token, an id has no token,
  // or a token is longer than TokenTrie allows or not UTF-8.
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options,
               const std::string& where);

  void encode(const Pieces& pieces, std::vector<int32_t>& ids) const override;
  void encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::optional<std::string> unk_token() const override {
    return std::string(*vocabulary_.token(options_.unk_id));
  }
  boost::json::object to_json() const override;

 private:
  // The best way to the end of a character.
  struct Step {
    double score;
    int32_t id;
    int32_t begin;  // of its last token; -1: not yet reached
  };
  struct Scratch {
    WordCache cache;
    std::vector<Step> steps;
    std::vector<TokenSpan> spans;
  };
  void best_cut(std::string_view piece, Scratch& scratch, std::vector<TokenSpan>& spans) const;
  void append_unknown(std::string_view piece, ByteRange run, std::vector<TokenSpan>& spans) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  UnigramOptions options_;
  double unknown_score_;
  TokenTrie trie_;
  std::optional<std::array<int32_t, 256>> byte_ids_;  // if there is byte_fallback; -1: no token
  ScratchPool<Scratch> scratch_;
};

// From the "model" object of a tokenizer.json.
std::unique_ptr<TokenModel> read_unigram_model(const JsonObject& model);

}  // namespace trireme
