#include "data/bpe_model.h"

#include <algorithm>
#include <cstdio>

#include "base/utf8.h"
#include "data/byte_alphabet.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr std::string_view kMarker = "\xE2\x96\x81";  // U+2581, SentencePiece's space

std::string byte_token(int byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

// The ranges of `count` symbols that together are a character: one, or one for each byte.
void append_ranges(size_t at, size_t length, size_t count, std::vector<ByteRange>& ranges) {
  const size_t each = count > 1 ? 1 : length;
  for (size_t i = 0; i < count; ++i)
    ranges.push_back({static_cast<uint32_t>(at + i), static_cast<uint32_t>(at + i + each)});
}

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, std::vector<BpeRule> rules, BpeOptions options,
                   const std::string& where)
    : vocabulary_(std::move(vocabulary)),
      rule_list_(std::move(rules)),
      options_(std::move(options)),
      page_of_(0x1100, 0) {
  for (const BpeRule& rule : rule_list_)
    for (const int32_t id : {rule.left, rule.right, rule.result})
      check<FileError>(vocabulary_.token(id).has_value(), where, ": a merge names the id ", id,
                       ", which is no token");
  std::stable_sort(rule_list_.begin(), rule_list_.end(),
                   [](const BpeRule& a, const BpeRule& b) { return a.rank < b.rank; });
  rules_ = BpeRules(rule_list_);
  if (options_.unk_token) {
    const auto id = vocabulary_.find(*options_.unk_token);
    check<FileError>(id.has_value(), where, ": unk_token \"", *options_.unk_token,
                     "\" is not in the vocabulary");
    unk_id_ = *id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    std::string name;
    if (options_.byte_level)
      append_utf8(name, byte_alphabet()[byte]);
    else
      name = byte_token(byte);
    byte_ids_[byte] = vocabulary_.find(name).value_or(kNoId);
  }
  std::array<int32_t, 256> empty;
  empty.fill(kNoId);
  pages_.push_back(empty);
  for (int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
    const auto token = vocabulary_.token(id);
    if (!token) continue;
    const Character c = character_at(*token, 0);
    if (c.length != token->size() || c.code_point == kNoCodePoint) continue;
    uint16_t& page = page_of_[c.code_point >> 8];
    if (page == 0) {
      page = static_cast<uint16_t>(pages_.size());
      pages_.push_back(empty);
    }
    pages_[page][c.code_point & 0xFF] = id;
  }
  marker_begins_words_ = words_begin_at_marker();
}

// Whether no merge can join a marker to another character in front of it. Then a text without pre-tokenizer
// can be cut there: symbols on either side never meet, and the parts are words that come again.
bool BpeModel::words_begin_at_marker() const {
  if (options_.byte_level || options_.ignore_merges || character_id(0x2581) == kNoId) return false;
  return std::none_of(rule_list_.begin(), rule_list_.end(), [&](const BpeRule& rule) {
    const std::string_view token = *vocabulary_.token(rule.result);
    for (size_t at = token.find(kMarker, 1); at != std::string_view::npos; at = token.find(kMarker, at + 1))
      if (!token.substr(0, at).ends_with(kMarker)) return true;
    return false;
  });
}

int32_t BpeModel::character_id(uint32_t code_point) const {
  return code_point > 0x10FFFF ? kNoId : pages_[page_of_[code_point >> 8]][code_point & 0xFF];
}

void BpeModel::encode(const Pieces& pieces, std::vector<int32_t>& ids) const {
  check<Error>(pieces.text().size() < (size_t{1} << 31), "cannot tokenize ", pieces.text().size(),
               " bytes at once; give the text in parts below 2 GiB");
  scratch_.with([&](Scratch& scratch) {
    pieces.for_each([&](std::string_view piece) { encode_piece(piece, scratch, ids); });
  });
}

void BpeModel::encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const {
  std::vector<int32_t> ids;
  std::vector<ByteRange> ranges;
  if (const auto whole = whole_token(piece)) {
    spans.push_back({*whole, {0, static_cast<uint32_t>(piece.size())}});
    return;
  }
  append_symbols(piece, ids, &ranges);
  scratch_.with([&](Scratch& scratch) { scratch.merger.merge(rules_, ids, 0, &ranges); });
  for (size_t i = 0; i < ids.size(); ++i) spans.push_back({ids[i], ranges[i]});
}

std::optional<int32_t> BpeModel::whole_token(std::string_view word) const {
  if (!options_.ignore_merges) return std::nullopt;
  return vocabulary_.find(options_.byte_level ? to_byte_alphabet(word) : std::string(word));
}

void BpeModel::encode_piece(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (!marker_begins_words_) return encode_word(piece, scratch, ids);
  size_t begin = 0;
  for (size_t at = piece.find(kMarker, 1); at != std::string_view::npos; at = piece.find(kMarker, at + 1)) {
    if (piece.substr(0, at).ends_with(kMarker)) continue;
    encode_word(piece.substr(begin, at - begin), scratch, ids);
    begin = at;
  }
  encode_word(piece.substr(begin), scratch, ids);
}

void BpeModel::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  const bool cacheable = word.size() <= WordCache::kMaxBytes;
  WordCache::Key key;
  if (cacheable) {
    key = WordCache::key_of(word);
    if (scratch.cache.append(key, ids)) return;
  }
  const size_t begin = ids.size();
  if (const auto whole = whole_token(word)) {
    ids.push_back(*whole);
  } else {
    append_symbols(word, ids);
    scratch.merger.merge(rules_, ids, begin);
  }
  if (cacheable) scratch.cache.store(key, std::span(ids).subspan(begin));
}

void BpeModel::append_symbols(std::string_view word, std::vector<int32_t>& ids,
                              std::vector<ByteRange>* ranges) const {
  bool follows_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const Character c =
        options_.byte_level ? Character{static_cast<uint8_t>(word[at]), 1} : character_at(word, at);
    const int32_t id = options_.byte_level ? byte_ids_[c.code_point] : character_id(c.code_point);
    const size_t before = ids.size();
    if (id != kNoId) {
      ids.push_back(id);
      follows_unknown = false;
    } else {
      append_unknown(word.substr(at, c.length), follows_unknown, ids);
      // Bytes end a run of unknown characters; a character that vanished or was fused does not.
      if (ranges && follows_unknown && ids.size() == before && unk_id_ != kNoId)
        ranges->back().end = static_cast<uint32_t>(at + c.length);
      follows_unknown = ids.size() == before ? follows_unknown : ids.back() == unk_id_;
    }
    if (ranges) append_ranges(at, c.length, ids.size() - before, *ranges);
    at += c.length;
  }
}

void BpeModel::append_unknown(std::string_view character, bool follows_unknown,
                              std::vector<int32_t>& ids) const {
  if (options_.byte_fallback && !options_.byte_level) {
    const auto id_of = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
    if (std::all_of(character.begin(), character.end(), [&](char byte) { return id_of(byte) != kNoId; })) {
      for (char byte : character) ids.push_back(id_of(byte));
      return;
    }
  }
  if (unk_id_ == kNoId || (options_.fuse_unk && follows_unknown)) return;
  ids.push_back(unk_id_);
}

}  // namespace trireme
