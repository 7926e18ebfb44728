#include "tasks/masked_lm.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "base/files.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/rng.h"

namespace trireme {
namespace {

std::vector<double> weights_of(const std::vector<MaskedLmBatches::File>& files) {
  std::vector<double> weights;
  for (const auto& f : files) weights.push_back(f.weight);
  return weights;
}

// Whether a token is the beginning of a word, by the spelling of the tokenizer's kind: WordPiece marks what
// goes on in a word, byte-level BPE and SentencePiece what begins one.
std::vector<char> word_beginnings(const Tokenizer& tokenizer) {
  bool continues = false;
  for (int32_t id = 0; id < tokenizer.vocab_size() && !continues; ++id)
    if (const auto token = tokenizer.id_to_token(id))
      continues = token->size() > 2 && token->starts_with("##");
  std::vector<char> begins(static_cast<size_t>(tokenizer.vocab_size()), 1);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto token = tokenizer.id_to_token(id);
    if (!token || tokenizer.is_special(id)) continue;
    begins[id] = continues ? !token->starts_with("##") : token->starts_with("Ġ") || token->starts_with("▁");
  }
  return begins;
}

}  // namespace

// Random numbers of one sample, in the order they are asked for.
class MaskedLmBatches::Draws {
 public:
  Draws(uint64_t seed, int64_t sample) : seed_(seed), sample_(static_cast<uint64_t>(sample)) {}
  uint32_t word() {
    if (next_ % 4 == 0) words_ = philox(seed_, kStream, sample_, next_ / 4);
    return words_[next_++ % 4];
  }
  float uniform() { return uniform_of(word()); }
  // In [0, n).
  int64_t below(int64_t n) {
    return static_cast<int64_t>((static_cast<uint64_t>(word()) * static_cast<uint64_t>(n)) >> 32);
  }

 private:
  static constexpr uint32_t kStream = static_cast<uint32_t>(stream_of("masked language model"));
  uint64_t seed_, sample_;
  uint32_t next_ = 0;
  std::array<uint32_t, 4> words_{};
};

struct MaskedLmBatches::Masked {
  std::vector<int32_t> ids, types, labels;
  int32_t random_next = 0;
};

MaskedLmBatches::MaskedLmBatches(const std::vector<File>& files, const Tokenizer& tokenizer,
                                 const Options& options)
    : weights_(weights_of(files)), options_(options), blend_(weights_of(files), options.seed) {
  const SpecialIds& special = tokenizer.special();
  for (const auto& [role, id] :
       {std::pair("cls", special.cls), std::pair("sep", special.sep), std::pair("mask", special.mask)})
    check<ConfigError>(id.has_value(), "tokenizer.path: the tokenizer has no ", role,
                       " token, which masked language modelling needs; use one of a BERT-like model");
  cls_ = *special.cls;
  sep_ = *special.sep;
  mask_ = *special.mask;
  begins_word_ = word_beginnings(tokenizer);
  special_.resize(begins_word_.size());
  for (size_t id = 0; id < special_.size(); ++id)
    special_[id] = tokenizer.is_special(static_cast<int64_t>(id));
  const int64_t body = options.sequence_length - (options.objective.next_sentence ? 3 : 2);
  check<ConfigError>(body >= 2, "data.sequence_length=", options.sequence_length,
                     " leaves no room between the special tokens; use at least 8");
  for (const File& f : files) {
    files_.push_back(TokenFile::open(f.path));
    const TokenFile& file = files_.back();
    check<ConfigError>(file.vocabulary() == files_[0].vocabulary(), f.path.string(), ": has a vocabulary of ",
                       file.vocabulary(), ", ", files_[0].path().string(), " one of ", files_[0].vocabulary(),
                       "; prepare both with one tokenizer");
    check<ConfigError>(file.vocabulary() <= tokenizer.vocab_size(), f.path.string(),
                       ": was prepared with a vocabulary of ", file.vocabulary(),
                       ", tokenizer.path has one of ", tokenizer.vocab_size());
    std::vector<Piece> pieces;
    int32_t document = 0;
    for (int64_t begin = 0; begin < file.num_tokens(); ++document) {
      const int64_t end = file.document_end(begin);
      for (; begin < end; begin += body)
        if (const int64_t length = std::min(body, end - begin); length >= 2)
          pieces.push_back({begin, static_cast<int32_t>(length), document});
      begin = end;
    }
    check<ConfigError>(!pieces.empty(), f.path.string(), ": has no document of two tokens");
    pieces_.push_back(std::move(pieces));
  }
}

int64_t MaskedLmBatches::samples_per_epoch() const {
  int64_t n = 0;
  for (const auto& pieces : pieces_) n += static_cast<int64_t>(pieces.size());
  return n;
}

MaskedLmBatches::Masked MaskedLmBatches::masked(int64_t number) const {
  const Draw draw = blend_(number);
  const TokenFile& file = files_[draw.source];
  const auto& pieces = pieces_[draw.source];
  const int64_t size = static_cast<int64_t>(pieces.size());
  int64_t index = draw.number % size;
  if (options_.shuffle) {
    const uint64_t key = options_.seed ^ (static_cast<uint64_t>(draw.number / size) * 0xd1342543de82ef95ull) ^
                         (static_cast<uint64_t>(draw.source) << 48);
    index = static_cast<int64_t>(Permutation(static_cast<uint64_t>(size), key)(static_cast<uint64_t>(index)));
  }
  const Piece& piece = pieces[index];
  std::vector<int32_t> body(piece.length);
  file.copy_tokens(piece.begin, body);

  Draws draws(options_.seed, number);
  Masked s;
  s.ids.push_back(cls_);
  if (!options_.objective.next_sentence) {
    s.ids.insert(s.ids.end(), body.begin(), body.end());
  } else {
    // Cut anywhere; the second part of half of the samples is replaced by as much of another document.
    const int64_t cut = 1 + draws.below(piece.length - 1);
    const bool elsewhere = draws.word() & 1;
    std::vector<int32_t> second(body.begin() + cut, body.end());
    for (int tries = 0; elsewhere && tries < 16 && !s.random_next; ++tries) {
      const Piece& other = pieces[draws.below(size)];
      if (other.document == piece.document) continue;
      second.resize(std::min<size_t>(second.size(), static_cast<size_t>(other.length)));
      file.copy_tokens(other.begin, second);
      s.random_next = 1;
    }
    s.ids.insert(s.ids.end(), body.begin(), body.begin() + cut);
    s.ids.push_back(sep_);
    s.types.assign(s.ids.size(), 0);
    s.ids.insert(s.ids.end(), second.begin(), second.end());
  }
  s.ids.push_back(sep_);
  if (options_.objective.next_sentence) s.types.resize(s.ids.size(), 1);
  choose(std::vector<int32_t>(s.ids), draws, s);
  return s;
}

// Chooses the tokens to predict, and changes them.
void MaskedLmBatches::choose(const std::vector<int32_t>& ids, Draws& draws, Masked& sample) const {
  const int64_t n = static_cast<int64_t>(ids.size());
  sample.labels.assign(ids.size(), kIgnoreLabel);
  const auto maskable = [&](int64_t i) { return !special_[ids[i]]; };
  std::vector<std::pair<int64_t, int64_t>> words;  // [begin, end)
  for (int64_t i = 0; i < n; ++i) {
    if (!maskable(i)) continue;
    const bool starts = words.empty() || words.back().second != i ||
                        options_.objective.masking == Masking::kToken || begins_word_[ids[i]];
    if (starts)
      words.emplace_back(i, i + 1);
    else
      words.back().second = i + 1;
  }
  if (words.empty()) return;
  const int64_t count = static_cast<int64_t>(words.size());
  const int64_t tokens = std::accumulate(words.begin(), words.end(), int64_t{0},
                                         [](int64_t sum, const auto& w) { return sum + w.second - w.first; });
  std::vector<std::pair<int64_t, int64_t>> chosen;
  if (options_.objective.masking == Masking::kToken) {
    for (const auto& w : words)
      if (draws.uniform() < options_.objective.probability) chosen.push_back(w);
    if (chosen.empty()) chosen.push_back(words[draws.below(count)]);
  } else {
    // Until so many tokens are chosen; the last word may go past it.
    const int64_t wanted = std::max<int64_t>(
        1, static_cast<int64_t>(options_.objective.probability * static_cast<double>(tokens) + 0.5));
    const bool spans = options_.objective.masking == Masking::kSpan;
    std::vector<char> taken(words.size(), 0);
    int64_t have = 0;
    for (int64_t tries = 0; have < wanted && tries < 16 * count; ++tries) {
      int64_t length = 1;
      while (spans && length < 10 && draws.uniform() >= 0.2f) ++length;
      const int64_t first = draws.below(count);
      if (first + length > count) continue;
      if (std::any_of(taken.begin() + first, taken.begin() + first + length, [](char t) { return t != 0; }))
        continue;
      for (int64_t w = first; w < first + length && have < wanted; ++w) {
        taken[w] = 1;
        have += words[w].second - words[w].first;
        if (spans && w > first && chosen.back().second == words[w].first)
          chosen.back().second = words[w].second;
        else
          chosen.push_back(words[w]);
      }
    }
  }
  // Spans change as one, all else token by token.
  for (const auto& [begin, end] : chosen) {
    float fate = draws.uniform();
    for (int64_t i = begin; i < end; ++i) {
      if (i > begin && options_.objective.masking != Masking::kSpan) fate = draws.uniform();
      sample.labels[i] = ids[i];
      if (fate < 0.8f)
        sample.ids[i] = mask_;
      else if (fate < 0.9f)
        sample.ids[i] = static_cast<int32_t>(draws.below(vocabulary()));
    }
  }
}

TokenBatch MaskedLmBatches::batch(const std::vector<int64_t>& numbers, size_t counted) const {
  BatchBuilder builder;
  std::vector<int32_t> labels, follows;
  for (size_t n = 0; n < std::max<size_t>(counted, 1); ++n) {
    const Masked s = masked(numbers.at(n));
    builder.add_segment(s.ids, s.types, numbers[n]);
    if (n < counted) labels.insert(labels.end(), s.labels.begin(), s.labels.end());
    labels.resize(static_cast<size_t>(builder.tokens()), kIgnoreLabel);
    follows.push_back(n < counted ? s.random_next : kIgnoreLabel);
  }
  builder.pad_to_multiple(options_.row_multiple, sep_);
  TokenBatch b = builder.build();
  labels.resize(static_cast<size_t>(builder.tokens()), kIgnoreLabel);
  b.labels = tensor_of<int32_t>(labels, {builder.tokens()});
  if (options_.objective.next_sentence) {
    follows.resize(static_cast<size_t>(builder.segments()), kIgnoreLabel);
    b.sequence_labels = tensor_of<int32_t>(follows, {builder.segments()});
  }
  return b;
}

uint64_t MaskedLmBatches::identity() const {
  std::string words =
      text(options_.sequence_length, ' ', options_.shuffle, ' ', options_.objective.probability, ' ',
           static_cast<int>(options_.objective.masking), ' ', options_.objective.next_sentence);
  for (size_t i = 0; i < files_.size(); ++i) words += text(' ', files_[i].content_hash(), '*', weights_[i]);
  return hash_bytes(std::as_bytes(std::span(words.data(), words.size()))).low;
}

std::string MaskedLmBatches::size_text() const {
  int64_t tokens = 0;
  for (const TokenFile& f : files_) tokens += f.num_tokens();
  return text(tokens, " tokens");
}

}  // namespace trireme
