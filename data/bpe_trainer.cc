#include "data/bpe_trainer.h"

#include <algorithm>
#include <deque>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/utf8.h"
#include "data/bpe_model.h"
#include "data/byte_alphabet.h"
#include "data/pretokenizer_scan.h"
#include "data/tokenizer_files.h"
#include "data/tokenizer_json.h"

namespace trireme {

namespace {

using PairKey = uint64_t;  // left << 32 | right
PairKey key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct Word {
  std::vector<int32_t> symbols;
  int64_t count = 0;
};

struct PairCount {
  int64_t count = 0;
  std::vector<uint32_t> words;  // that may hold the pair; some may have lost it since
};

// In the queue; the count may have fallen since.
struct Candidate {
  int64_t count;
  PairKey pair;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class PairCounts {
 public:
  explicit PairCounts(std::vector<Word>& words) : words_(words) {
    for (uint32_t w = 0; w < words_.size(); ++w) add_pairs(w, true);
    for (const auto& [pair, count] : pairs_) queue_.push({count.count, pair});
    touched_.clear();
  }

  // The most frequent pair, or one with count 0 if there is none.
  Candidate pop() {
    while (!queue_.empty()) {
      Candidate top = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(top.pair);
      const int64_t now = found == pairs_.end() ? 0 : found->second.count;
      if (now == top.count && now > 0) return top;
      // A rise since was queued on its own; a fall was not.
      if (now > 0 && now < top.count) queue_.push({now, top.pair});
    }
    return {0, 0};
  }

  void merge(PairKey pair, int32_t result) {
    const int32_t left = static_cast<int32_t>(pair >> 32), right = static_cast<int32_t>(pair & 0xFFFFFFFF);
    const std::vector<uint32_t> holders = std::move(pairs_.find(pair)->second.words);
    pairs_.erase(pair);
    touched_.clear();
    for (const uint32_t w : holders) merge_in(w, left, right, result);
    for (const PairKey risen : touched_) {
      const auto found = pairs_.find(risen);
      if (found != pairs_.end() && found->second.count > 0) queue_.push({found->second.count, risen});
    }
  }

 private:
  void add_pairs(uint32_t w, bool remember) {
    const Word& word = words_[w];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i)
      change(key_of(word.symbols[i], word.symbols[i + 1]), word.count, w, remember);
  }

  void change(PairKey pair, int64_t by, uint32_t w, bool remember) {
    PairCount& count = pairs_[pair];
    count.count += by;
    if (!remember) return;
    if (count.words.empty() || count.words.back() != w) count.words.push_back(w);
    touched_.insert(pair);
  }

  // Only the pairs beside a merged one change, so the counts move by those alone.
  void merge_in(uint32_t w, int32_t left, int32_t right, int32_t result) {
    Word& word = words_[w];
    std::vector<int32_t>& symbols = word.symbols;
    size_t kept = 0;
    for (size_t i = 0; i < symbols.size(); ++i) {
      if (i + 1 == symbols.size() || symbols[i] != left || symbols[i + 1] != right) {
        symbols[kept++] = symbols[i];
        continue;
      }
      if (kept > 0) {
        lower(symbols[kept - 1], left, word.count);
        change(key_of(symbols[kept - 1], result), word.count, w, true);
      }
      if (i + 2 < symbols.size()) {
        lower(right, symbols[i + 2], word.count);
        change(key_of(result, symbols[i + 2]), word.count, w, true);
      }
      symbols[kept++] = result;
      ++i;
    }
    symbols.resize(kept);
  }

  // The merged pair itself is no longer counted, and its neighbour may be another of its kind.
  void lower(int32_t left, int32_t right, int64_t by) {
    const auto found = pairs_.find(key_of(left, right));
    if (found != pairs_.end()) found->second.count -= by;
  }

  std::vector<Word>& words_;
  std::unordered_map<PairKey, PairCount> pairs_;
  std::unordered_set<PairKey> touched_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

struct BpeTrainer::State {
  BpeTraining options;
  std::deque<std::string> words;  // where the keys of counts stay
  std::unordered_map<std::string_view, int64_t> counts;
  std::vector<size_t> ends;
};

BpeTrainer::BpeTrainer(BpeTraining options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  if (state_->options.roberta) state_->options.special_tokens = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"};
  const BpeTraining& o = state_->options;
  const int64_t least = 256 + static_cast<int64_t>(o.special_tokens.size());
  check<ConfigError>(o.vocab_size >= least, "tokenizer training: vocab_size is ", o.vocab_size, "; with ",
                     o.special_tokens.size(), " special tokens it must be at least ", least);
  check<ConfigError>(o.min_frequency >= 1, "tokenizer training: min_frequency is ", o.min_frequency,
                     "; it must be at least 1");
  std::unordered_set<std::string> seen;
  for (const std::string& token : o.special_tokens) {
    check<ConfigError>(token.size() > 1, "tokenizer training: the special token \"", token,
                       "\" must have more than one byte");
    check<ConfigError>(is_valid_utf8(token), "tokenizer training: a special token is not UTF-8");
    check<ConfigError>(seen.insert(token).second, "tokenizer training: the special token \"", token,
                       "\" is there twice");
  }
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view text) {
  State& s = *state_;
  std::string prefixed;
  if (s.options.add_prefix_space && !text.empty() && text.front() != ' ') {
    prefixed.append(" ").append(text);
    text = prefixed;
  }
  s.ends.clear();
  scan_gpt2(text, 0, s.ends);
  size_t begin = 0;
  for (const size_t end : s.ends) {
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    const auto found = s.counts.find(word);
    if (found != s.counts.end())
      ++found->second;
    else
      s.counts.emplace(s.words.emplace_back(word), 1);
  }
}

Tokenizer BpeTrainer::train() {
  State& s = *state_;
  const BpeTraining& options = s.options;
  std::vector<std::string> tokens = options.special_tokens;
  // Bytes in the order of their characters, as other trainers number them.
  std::vector<std::pair<uint16_t, int>> alphabet;
  for (int byte = 0; byte < 256; ++byte) alphabet.emplace_back(byte_alphabet()[byte], byte);
  std::sort(alphabet.begin(), alphabet.end());
  std::array<int32_t, 256> byte_ids;
  for (const auto& [character, byte] : alphabet) {
    byte_ids[byte] = static_cast<int32_t>(tokens.size());
    append_utf8(tokens.emplace_back(), character);
  }

  std::vector<Word> words;
  words.reserve(s.counts.size());
  for (const std::string& spelling : s.words) {
    Word word;
    word.count = s.counts.at(spelling);
    for (char c : spelling) word.symbols.push_back(byte_ids[static_cast<uint8_t>(c)]);
    words.push_back(std::move(word));
  }
  s.counts.clear();
  s.words.clear();

  // Two ways of merging can spell one token.
  std::unordered_map<std::string, int32_t> id_of;
  for (size_t id = 0; id < tokens.size(); ++id) id_of.emplace(tokens[id], static_cast<int32_t>(id));
  std::vector<BpeRule> rules;
  PairCounts pairs(words);
  while (static_cast<int64_t>(tokens.size()) < options.vocab_size) {
    const Candidate best = pairs.pop();
    if (best.count < options.min_frequency) break;
    const int32_t left = static_cast<int32_t>(best.pair >> 32),
                  right = static_cast<int32_t>(best.pair & 0xFFFFFFFF);
    std::string spelling = tokens[left] + tokens[right];
    const auto [found, added] = id_of.emplace(spelling, static_cast<int32_t>(tokens.size()));
    const int32_t result = found->second;
    if (added) tokens.push_back(std::move(spelling));
    rules.push_back({left, right, static_cast<int32_t>(rules.size()), result});
    pairs.merge(best.pair, result);
    if (options.progress && rules.size() % 1024 == 0)
      options.progress(static_cast<int32_t>(tokens.size()), options.vocab_size);
  }
  if (options.progress) options.progress(static_cast<int32_t>(tokens.size()), options.vocab_size);

  std::vector<std::pair<std::string, int64_t>> entries;
  for (size_t id = 0; id < tokens.size(); ++id) entries.emplace_back(tokens[id], id);
  const std::string where = "trained tokenizer";
  TokenizerDescription description = gpt2_description(options.add_prefix_space);
  for (size_t id = 0; id < options.special_tokens.size(); ++id)
    description.added_tokens.push_back({options.special_tokens[id], static_cast<int32_t>(id)});
  description.special = roles_by_name(description.added_tokens);
  if (options.roberta) {
    description.added_tokens.back().lstrip = true;  // <mask> takes the space before it
    description.special.cls = description.special.bos;
    description.special.sep = description.special.eos;
    description.post_processor = boost::json::object{{"type", "RobertaProcessing"},
                                                     {"sep", boost::json::array{"</s>", 2}},
                                                     {"cls", boost::json::array{"<s>", 0}},
                                                     {"trim_offsets", true},
                                                     {"add_prefix_space", options.add_prefix_space}};
  }
  BpeOptions model_options;
  model_options.byte_level = true;
  auto model = std::make_unique<BpeModel>(Vocabulary(std::move(entries), where), std::move(rules),
                                          model_options, where);
  return Tokenizer(std::move(model), std::move(description), where);
}

Tokenizer train_bpe(std::span<const std::string_view> texts, BpeTraining options) {
  BpeTrainer trainer(std::move(options));
  for (std::string_view text : texts) trainer.add(text);
  return trainer.train();
}

}  // namespace trireme
