// Byte-pair encoding over bytes (GPT-2: Radford et al. 2019) or over Unicode characters with a fallback to
// byte tokens (as SentencePiece's BPE models are published; Kudo & Richardson 2018, arXiv:1808.06226).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "data/bpe_merge.h"
#include "data/token_model.h"
#include "data/word_cache.h"

namespace trireme {

struct BpeOptions {
  bool byte_level = false;     // tokens are spelled in the byte alphabet; symbols are bytes
  bool byte_fallback = false;  // a character without a token becomes its bytes' tokens <0x00> to <0xFF>
  bool fuse_unk = false;       // one unk_token for a run of unknown characters
  bool ignore_merges = false;  // a piece that is a token stays whole, whatever the merges say
  std::optional<std::string> unk_token;  // without one, unknown characters vanish
};

// What is at work on one piece: symbols are bytes or characters, looked up as tokens; rules merge them.
// Words are remembered from call to call.
class BpeModel final : public TokenModel {
 public:
  // Throws FileError "where: ..." if unk_token is no token or a rule names an id that is none.
  BpeModel(Vocabulary vocabulary, std::vector<BpeRule> rules, BpeOptions options, const std::string& where);

  void encode(const Pieces& pieces, std::vector<int32_t>& ids) const override;
  void encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::optional<std::string> unk_token() const override { return options_.unk_token; }
  boost::json::object to_json() const override;

 private:
  struct Scratch {
    BpeMerger merger;
    WordCache cache;
  };
  void encode_piece(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  // `ranges`, if given, receives the bytes of each symbol.
  void append_symbols(std::string_view word, std::vector<int32_t>& ids,
                      std::vector<ByteRange>* ranges = nullptr) const;
  std::optional<int32_t> whole_token(std::string_view word) const;  // where ignore_merges lets it stay whole
  void append_unknown(std::string_view character, bool follows_unknown, std::vector<int32_t>& ids) const;
  int32_t character_id(uint32_t code_point) const;
  bool words_begin_at_marker() const;

  static constexpr int32_t kNoId = -1;
  Vocabulary vocabulary_;
  std::vector<BpeRule> rule_list_;  // as written to files: by rank
  BpeOptions options_;
  BpeRules rules_;
  int32_t unk_id_ = kNoId;
  std::array<int32_t, 256> byte_ids_;  // of single bytes (byte level) or of the byte tokens (byte fallback)
  // Single characters: page code_point / 256 of character_pages_, entry code_point % 256.
  std::vector<uint16_t> page_of_;
  std::vector<std::array<int32_t, 256>> pages_;
  bool marker_begins_words_ = false;
  ScratchPool<Scratch> scratch_;
};

// A rule list from pairs of tokens, rank by order. Throws FileError "where: ..." naming the first pair of
// which either part or the whole is no token.
std::vector<BpeRule> bpe_rules_from_pairs(std::span<const std::pair<std::string, std::string>> pairs,
                                          const Vocabulary& vocabulary, const std::string& where);

// The "vocab" object of token -> id.
Vocabulary read_vocabulary(const boost::json::object& vocab, const std::string& where,
                           const std::string& path);

// From the "model" object of a tokenizer.json.
std::unique_ptr<TokenModel> read_bpe_model(const JsonObject& model, bool byte_level);

// Byte-level BPE from the text of the files vocab.json (or encoder.json) and merges.txt (or vocab.bpe): a
// line "#version..." and then a pair a line.
std::unique_ptr<TokenModel> read_byte_level_bpe(std::string_view vocab_json, const std::string& vocab_where,
                                                std::string_view merges, const std::string& merges_where);

}  // namespace trireme
