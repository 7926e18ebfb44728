#include "data/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "base/files.h"
#include "base/json.h"
#include "data/byte_alphabet.h"
#include "data/pretokenizer_scan.h"
#include "data/tokenizer_json.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

// The definition: count all pairs anew for each merge.
std::vector<std::pair<std::string, std::string>> naive_merges(const std::string& text, size_t merges,
                                                              int64_t least, size_t specials) {
  std::vector<size_t> ends;
  scan_gpt2(text, 0, ends);
  std::vector<std::string> tokens(specials, "");
  std::map<std::string, int> id_of;
  std::set<std::pair<uint16_t, int>> alphabet;
  for (int b = 0; b < 256; ++b) alphabet.insert({byte_alphabet()[b], b});
  for (const auto& [point, b] : alphabet) {
    tokens.push_back(to_byte_alphabet(std::string(1, static_cast<char>(b))));
    id_of[tokens.back()] = static_cast<int>(tokens.size()) - 1;
  }
  std::vector<std::vector<int>> words;
  size_t begin = 0;
  for (size_t end : ends) {
    words.emplace_back();
    for (; begin < end; ++begin) words.back().push_back(id_of.at(to_byte_alphabet(text.substr(begin, 1))));
  }
  std::vector<std::pair<std::string, std::string>> made;
  while (made.size() < merges) {
    std::map<std::pair<int, int>, int64_t> counts;
    for (const auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    std::pair<int, int> best;
    int64_t count = 0;
    for (const auto& [pair, n] : counts)
      if (n > count) {
        best = pair;
        count = n;
      }
    if (count < least) break;
    const std::string whole = tokens[best.first] + tokens[best.second];
    made.emplace_back(tokens[best.first], tokens[best.second]);
    const auto [found, added] = id_of.emplace(whole, static_cast<int>(tokens.size()));
    if (added) tokens.push_back(whole);
    for (auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i)
        if (word[i] == best.first && word[i + 1] == best.second) {
          word[i] = found->second;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
  }
  return made;
}

std::vector<std::pair<std::string, std::string>> merges_of(const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, std::string>> merges;
  const boost::json::object model = tokenizer.model().to_json();
  for (const auto& merge : model.at("merges").as_array()) {
    const std::string line(merge.as_string());
    merges.emplace_back(line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1));
  }
  return merges;
}

std::string random_text(unsigned seed, size_t words) {
  std::mt19937 random(seed);
  std::string text;
  for (size_t i = 0; i < words; ++i) {
    for (size_t n = 1 + random() % 7; n > 0; --n) text.push_back(static_cast<char>('a' + random() % 3));
    text.push_back(random() % 9 == 0 ? '\n' : ' ');
  }
  return text;
}

TEST(BpeTrainer, MakesTheMergesOfTheDefinition) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    // Runs of one letter are where overlapping pairs go wrong.
    const std::string text = random_text(seed, 120) + " aaaaaaa aaaa aaaaaaaaaa bbbb\xFF\xFE";
    BpeTraining options;
    options.vocab_size = 257 + 60;
    const std::string_view view = text;
    const Tokenizer tokenizer = train_bpe(std::span(&view, 1), options);
    EXPECT_EQ(merges_of(tokenizer), naive_merges(text, 60, 2, 1)) << "seed " << seed;
  }
}

TEST(BpeTrainer, GivesTheSameForTextsInAnyOrder) {
  std::vector<std::string> parts;
  for (unsigned i = 0; i < 5; ++i) parts.push_back(random_text(i, 60));
  std::vector<std::string_view> forward(parts.begin(), parts.end()), backward(parts.rbegin(), parts.rend());
  BpeTraining options;
  options.vocab_size = 400;
  EXPECT_EQ(tokenizer_json(train_bpe(forward, options)), tokenizer_json(train_bpe(backward, options)));
}

TEST(BpeTrainer, StopsWhereNoPairIsFrequentEnough) {
  const std::string_view text = "ab ab ab cd";  // " ab" occurs twice, "ab" once more at the front
  BpeTraining options;
  options.vocab_size = 1000;
  options.min_frequency = 3;
  int32_t last = 0;
  options.progress = [&](int32_t done, int32_t) { last = done; };
  const Tokenizer tokenizer = train_bpe(std::span(&text, 1), options);
  EXPECT_EQ(merges_of(tokenizer), (std::vector<std::pair<std::string, std::string>>{{"a", "b"}}));
  EXPECT_EQ(tokenizer.vocab_size(), 258);
  EXPECT_EQ(last, 258);
}

TEST(BpeTrainer, PutsSpecialTokensFirstAndKnowsThemInText) {
  const std::string_view text = "the cat and the dog and the bird";
  BpeTraining options;
  options.vocab_size = 262;
  options.special_tokens = {"<|endoftext|>", "<|user|>"};
  const Tokenizer tokenizer = train_bpe(std::span(&text, 1), options);
  EXPECT_EQ(tokenizer.vocab_size(), 262);
  EXPECT_EQ(tokenizer.eos_id(), 0);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  const auto ids = tokenizer.encode("the<|user|>cat");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 1);
  EXPECT_EQ(tokenizer.decode(ids), "the<|user|>cat");
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = true}), "thecat");
  const auto plain = tokenizer.encode("the<|user|>cat", {.special_in_text = false});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 1), 0);
  EXPECT_EQ(tokenizer.decode(plain, {.skip_special_tokens = true}), "the<|user|>cat");
}

TEST(BpeTrainer, RefusesOptionsThatCannotBe) {
  const auto message = [](BpeTraining options) -> std::string {
    try {
      BpeTrainer trainer(std::move(options));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(message({.vocab_size = 256}),
            "tokenizer training: vocab_size is 256; with 1 special tokens it must be at least 257");
  EXPECT_EQ(message({.min_frequency = 0}), "tokenizer training: min_frequency is 0; it must be at least 1");
  EXPECT_EQ(message({.special_tokens = {"<a>", "<a>"}}),
            "tokenizer training: the special token \"<a>\" is there twice");
}

TEST(BpeTrainer, CompressesRealTextAndGivesItBack) {
  const auto path = testing::sample_data("tinyshakespeare/input.txt");
  TRIREME_SKIP_WITHOUT(path);
  std::string text = read_text_file(path, 1 << 24);
  BpeTraining options;
  options.vocab_size = 2048;
  const std::string_view view = text;
  const Tokenizer tokenizer = train_bpe(std::span(&view, 1), options);
  EXPECT_EQ(tokenizer.vocab_size(), 2048);
  const auto ids = tokenizer.encode(text);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_GT(static_cast<double>(text.size()) / static_cast<double>(ids.size()), 2.8);
}

}  // namespace
}  // namespace trireme
