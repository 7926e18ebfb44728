#include "data/unigram_model.h"

#include <algorithm>
#include <cstdio>

#include "base/utf8.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr double kUnknownPenalty = 10;

std::vector<std::pair<std::string_view, int32_t>> all_tokens(const Vocabulary& vocabulary,
                                                             const std::string& where) {
  std::vector<std::pair<std::string_view, int32_t>> tokens;
  for (int32_t id = 0; id < vocabulary.id_limit(); ++id) {
    const auto token = vocabulary.token(id);
    check<FileError>(token.has_value(), where, ": the id ", id, " has no token");
    check<FileError>(token->size() <= TokenTrie::kMaxTokenBytes, where, ": the token of id ", id, " has ",
                     token->size(), " bytes; at most ", TokenTrie::kMaxTokenBytes, " are supported");
    check<FileError>(is_valid_utf8(*token), where, ": the token of id ", id, " is not UTF-8");
    tokens.emplace_back(*token, id);
  }
  return tokens;
}

}  // namespace

UnigramModel::UnigramModel(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options,
                           const std::string& where)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      options_(options),
      trie_(all_tokens(vocabulary_, where)) {
  check<FileError>(vocabulary_.token(options_.unk_id).has_value(), where, ": unk_id is ", options_.unk_id,
                   ", but there are ", vocabulary_.count(), " tokens");
  TRIREME_ASSERT(scores_.size() == vocabulary_.count());
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  if (!options_.byte_fallback) return;
  byte_ids_.emplace();
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    (*byte_ids_)[static_cast<size_t>(byte)] = vocabulary_.find(name).value_or(-1);
  }
}

void UnigramModel::encode(const Pieces& pieces, std::vector<int32_t>& ids) const {
  check<Error>(pieces.text().size() < (size_t{1} << 31), "cannot tokenize ", pieces.text().size(),
               " bytes at once; give the text in parts below 2 GiB");
  scratch_.with([&](Scratch& scratch) {
    pieces.for_each([&](std::string_view piece) {
      const bool cacheable = piece.size() <= WordCache::kMaxBytes;
      WordCache::Key key;
      if (cacheable) {
        key = WordCache::key_of(piece);
        if (scratch.cache.append(key, ids)) return;
      }
      const size_t begin = ids.size();
      scratch.spans.clear();
      best_cut(piece, scratch, scratch.spans);
      for (const TokenSpan& span : scratch.spans) ids.push_back(span.id);
      if (cacheable) scratch.cache.store(key, std::span(ids).subspan(begin));
    });
  });
}

void UnigramModel::encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const {
  scratch_.with([&](Scratch& scratch) { best_cut(piece, scratch, spans); });
}

// Viterbi's algorithm over the ends of characters.
void UnigramModel::best_cut(std::string_view piece, Scratch& scratch, std::vector<TokenSpan>& spans) const {
  std::vector<Step>& steps = scratch.steps;
  steps.assign(piece.size() + 1, {0, 0, -1});
  for (size_t at = 0; at < piece.size();) {
    const size_t length = character_at(piece, at).length;
    const double here = steps[at].score;
    const auto offer = [&](size_t end, double score, int32_t id) {
      Step& step = steps[end];
      if (step.begin < 0 || here + score > step.score) step = {here + score, id, static_cast<int32_t>(at)};
    };
    bool whole_character = false;
    trie_.for_each_prefix(piece.substr(at), [&](size_t bytes, int32_t id) {
      whole_character |= bytes == length;
      offer(at + bytes, scores_[static_cast<size_t>(id)], id);
    });
    if (!whole_character) offer(at + length, unknown_score_, options_.unk_id);
    at += length;
  }
  // Back from the end.
  const size_t first = spans.size();
  for (size_t end = piece.size(); end > 0;) {
    const Step& step = steps[end];
    spans.push_back({step.id, {static_cast<uint32_t>(step.begin), static_cast<uint32_t>(end)}});
    end = static_cast<size_t>(step.begin);
  }
  std::reverse(spans.begin() + static_cast<std::ptrdiff_t>(first), spans.end());
  const auto unknown = [&](const TokenSpan& span) { return span.id == options_.unk_id; };
  if (std::none_of(spans.begin() + static_cast<std::ptrdiff_t>(first), spans.end(), unknown)) return;
  const std::vector<TokenSpan> cut(spans.begin() + static_cast<std::ptrdiff_t>(first), spans.end());
  spans.resize(first);
  for (size_t i = 0; i < cut.size(); ++i) {
    if (!unknown(cut[i])) {
      spans.push_back(cut[i]);
      continue;
    }
    ByteRange run = cut[i].bytes;
    for (; i + 1 < cut.size() && unknown(cut[i + 1]); ++i) run.end = cut[i + 1].bytes.end;
    append_unknown(piece, run, spans);
  }
}

void UnigramModel::append_unknown(std::string_view piece, ByteRange run,
                                  std::vector<TokenSpan>& spans) const {
  const std::string_view text = piece.substr(run.begin, run.end - run.begin);
  const auto whole = vocabulary_.find(text);  // the unknown token as it is written
  const auto id_of = [&](char byte) { return (*byte_ids_)[static_cast<uint8_t>(byte)]; };
  if (!whole && byte_ids_ &&
      std::all_of(text.begin(), text.end(), [&](char byte) { return id_of(byte) >= 0; }))
    for (char byte : text) spans.push_back({id_of(byte), run});
  else
    spans.push_back({whole.value_or(options_.unk_id), run});
}

boost::json::object UnigramModel::to_json() const {
  boost::json::array vocab;
  vocab.reserve(vocabulary_.count());
  for (int32_t id = 0; id < vocabulary_.id_limit(); ++id)
    vocab.push_back(boost::json::array{*vocabulary_.token(id), scores_[static_cast<size_t>(id)]});
  boost::json::object model;
  model["type"] = "Unigram";
  model["unk_id"] = options_.unk_id;
  model["vocab"] = std::move(vocab);
  model["byte_fallback"] = options_.byte_fallback;
  return model;
}

std::unique_ptr<TokenModel> read_unigram_model(const JsonObject& model) {
  const boost::json::array& vocab = model.array("vocab");
  std::vector<std::pair<std::string, int64_t>> entries;
  std::vector<double> scores;
  entries.reserve(vocab.size());
  scores.reserve(vocab.size());
  for (const boost::json::value& entry : vocab) {
    const std::string name = model.path_of("vocab") + "[" + std::to_string(entries.size()) + "]";
    const auto* pair = entry.if_array();
    check<FileError>(pair && pair->size() == 2, model.where(), ": ", name, " is ", describe(entry),
                     "; it must be [token, score]");
    entries.emplace_back(json_string((*pair)[0], model.where(), name), static_cast<int64_t>(entries.size()));
    scores.push_back(json_number((*pair)[1], model.where(), name));
  }
  if (entries.empty()) model.fail("vocab", "is empty");
  UnigramOptions options;
  options.unk_id = static_cast<int32_t>(model.integer("unk_id", 0, static_cast<int64_t>(entries.size()) - 1));
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  const std::string where = model.where() + ": " + model.path_of("vocab");
  return std::make_unique<UnigramModel>(Vocabulary(std::move(entries), where), std::move(scores), options,
                                        where);
}

}  // namespace trireme
