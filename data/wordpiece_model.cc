#include "data/wordpiece_model.h"

#include "base/utf8.h"
#include "data/bpe_model.h"

namespace trireme {

namespace {

using Tokens = std::vector<std::pair<std::string_view, int32_t>>;

// The tokens that begin with `prefix`, without it.
Tokens tokens_after(const Vocabulary& vocabulary, std::string_view prefix, const std::string& where) {
  Tokens tokens;
  for (int32_t id = 0; id < vocabulary.id_limit(); ++id) {
    const auto token = vocabulary.token(id);
    if (!token || !token->starts_with(prefix) || token->size() == prefix.size()) continue;
    check<FileError>(token->size() <= TokenTrie::kMaxTokenBytes, where, ": the token of id ", id, " has ",
                     token->size(), " bytes; at most ", TokenTrie::kMaxTokenBytes, " are supported");
    tokens.emplace_back(token->substr(prefix.size()), id);
  }
  return tokens;
}

int32_t id_of_unknown(const Vocabulary& vocabulary, const std::string& unk_token, const std::string& where) {
  const auto id = vocabulary.find(unk_token);
  check<FileError>(id.has_value(), where, ": unk_token \"", unk_token, "\" is not in the vocabulary");
  return *id;
}

bool is_longer_than(std::string_view word, int64_t characters) {
  if (static_cast<int64_t>(word.size()) <= characters) return false;
  int64_t count = 0;
  for (char c : word) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count > characters;
}

// Calls visit(id, begin, end) for each token of the word; false if it has none.
template <class Visit>
bool cut_word(const TokenTrie& begins, const TokenTrie& continues, std::string_view word, Visit&& visit) {
  for (size_t at = 0; at < word.size();) {
    size_t longest = 0;
    int32_t id = -1;
    (at == 0 ? begins : continues).for_each_prefix(word.substr(at), [&](size_t length, int32_t token) {
      longest = length;
      id = token;
    });
    if (longest == 0) return false;
    visit(id, at, at + longest);
    at += longest;
  }
  return true;
}

}  // namespace

WordPieceModel::WordPieceModel(Vocabulary vocabulary, WordPieceOptions options, const std::string& where)
    : vocabulary_(std::move(vocabulary)),
      options_(std::move(options)),
      unk_id_(id_of_unknown(vocabulary_, options_.unk_token, where)),
      begins_(tokens_after(vocabulary_, "", where)),
      continues_(tokens_after(vocabulary_, options_.continuing_subword_prefix, where)) {}

void WordPieceModel::encode(const Pieces& pieces, std::vector<int32_t>& ids) const {
  cache_.with([&](WordCache& cache) {
    pieces.for_each([&](std::string_view word) {
      const bool cacheable = word.size() <= WordCache::kMaxBytes;
      WordCache::Key key;
      if (cacheable) {
        key = WordCache::key_of(word);
        if (cache.append(key, ids)) return;
      }
      const size_t begin = ids.size();
      if (is_longer_than(word, options_.max_input_chars_per_word) ||
          !cut_word(begins_, continues_, word, [&](int32_t id, size_t, size_t) { ids.push_back(id); })) {
        ids.resize(begin);
        ids.push_back(unk_id_);
      }
      if (cacheable) cache.store(key, std::span(ids).subspan(begin));
    });
  });
}

void WordPieceModel::encode_spans(std::string_view word, std::vector<TokenSpan>& spans) const {
  const size_t first = spans.size();
  const auto add = [&](int32_t id, size_t begin, size_t end) {
    spans.push_back({id, {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}});
  };
  if (is_longer_than(word, options_.max_input_chars_per_word) || !cut_word(begins_, continues_, word, add)) {
    spans.resize(first);
    add(unk_id_, 0, word.size());
  }
}

boost::json::object WordPieceModel::to_json() const {
  boost::json::object vocab, model;
  vocab.reserve(vocabulary_.count());
  for (int32_t id = 0; id < vocabulary_.id_limit(); ++id)
    if (const auto token = vocabulary_.token(id)) vocab[*token] = id;
  model["type"] = "WordPiece";
  model["unk_token"] = options_.unk_token;
  model["continuing_subword_prefix"] = options_.continuing_subword_prefix;
  model["max_input_chars_per_word"] = options_.max_input_chars_per_word;
  model["vocab"] = std::move(vocab);
  return model;
}

std::unique_ptr<TokenModel> read_wordpiece_model(const JsonObject& model) {
  WordPieceOptions options;
  options.unk_token = model.string_or("unk_token", options.unk_token);
  options.continuing_subword_prefix =
      model.string_or("continuing_subword_prefix", options.continuing_subword_prefix);
  options.max_input_chars_per_word =
      model.integer_or("max_input_chars_per_word", options.max_input_chars_per_word, 0, int64_t{1} << 31);
  const JsonObject vocab = model.object("vocab");
  return std::make_unique<WordPieceModel>(read_vocabulary(vocab.raw(), model.where(), model.path_of("vocab")),
                                          std::move(options), model.where());
}

std::unique_ptr<TokenModel> read_vocab_txt(std::string_view text, const std::string& where) {
  std::vector<std::pair<std::string, int64_t>> entries;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    check<FileError>(!line.empty(), where, ": line ", entries.size() + 1, " is empty; each line is a token");
    check<FileError>(is_valid_utf8(line), where, ": line ", entries.size() + 1, " is not UTF-8");
    entries.emplace_back(line, static_cast<int64_t>(entries.size()));
  }
  check<FileError>(!entries.empty(), where, ": is empty; each line is a token");
  return std::make_unique<WordPieceModel>(Vocabulary(std::move(entries), where), WordPieceOptions(), where);
}

std::optional<std::string> WordPieceModel::vocab_txt() const {
  const WordPieceOptions usual;
  if (options_.unk_token != usual.unk_token ||
      options_.continuing_subword_prefix != usual.continuing_subword_prefix ||
      options_.max_input_chars_per_word != usual.max_input_chars_per_word)
    return std::nullopt;
  std::string text;
  for (int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
    const auto token = vocabulary_.token(id);
    if (!token || token->find_first_of("\r\n") != std::string_view::npos) return std::nullopt;
    text.append(*token).push_back('\n');
  }
  return text;
}

}  // namespace trireme
