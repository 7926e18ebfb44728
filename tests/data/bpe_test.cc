#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "data/bpe_model.h"
#include "data/byte_alphabet.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;
using Pair = std::pair<std::string, std::string>;

// The definition, in quadratic time: find the best pair, leftmost first, merge it, start again.
Ids naive_merge(const std::vector<BpeRule>& rules, Ids symbols) {
  while (true) {
    const BpeRule* best = nullptr;
    size_t place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      for (const BpeRule& rule : rules)
        if (rule.left == symbols[i] && rule.right == symbols[i + 1] && (!best || rule.rank < best->rank)) {
          best = &rule;
          place = i;
        }
    if (!best) return symbols;
    symbols[place] = best->result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

TEST(BpeMerger, AgreesWithTheDefinitionOnShortAndLongWords) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    // Rules over 4 letters and their products; every third rule shares its rank with the one before.
    std::vector<BpeRule> rules;
    std::map<std::pair<int32_t, int32_t>, bool> seen;
    int32_t rank = 0;
    for (int32_t id = 4; id < 24; ++id) {
      const int32_t left = static_cast<int32_t>(random() % id), right = static_cast<int32_t>(random() % id);
      if (seen[{left, right}]) continue;
      seen[{left, right}] = true;
      if (random() % 3 != 0) ++rank;
      rules.push_back({left, right, rank, id});
    }
    const BpeRules table(rules);
    BpeMerger merger;
    for (const size_t length : {1, 2, 3, 17, 31, 32, 33, 34, 90, 150}) {
      Ids word;
      for (size_t i = 0; i < length; ++i) word.push_back(static_cast<int32_t>(random() % (round % 4 + 1)));
      Ids merged{77};
      merged.insert(merged.end(), word.begin(), word.end());
      merger.merge(table, merged, 1);
      EXPECT_EQ(merged.front(), 77);
      merged.erase(merged.begin());
      EXPECT_EQ(merged, naive_merge(rules, word)) << "round " << round << " length " << length;
    }
  }
}

TEST(WordCache, GivesBackWhatWasStoredForThatWordAlone) {
  WordCache cache;
  std::mt19937 random(1);
  std::map<std::string, Ids> stored;
  for (int i = 0; i < 40000; ++i) {
    std::string word;
    for (size_t n = 1 + random() % 15; n > 0; --n) word.push_back(static_cast<char>(random() % 3));
    Ids ids(random() % 12);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 100);
    if (stored.emplace(word, ids).second) cache.store(WordCache::key_of(word), ids);
  }
  size_t hits = 0;
  for (const auto& [word, ids] : stored) {
    Ids found;
    if (!cache.append(WordCache::key_of(word), found)) continue;
    ++hits;
    ASSERT_EQ(found, ids);
  }
  EXPECT_GT(hits, 5000u);
  Ids none;
  EXPECT_FALSE(WordCache().append(WordCache::key_of("a"), none));
}

std::unique_ptr<BpeModel> make(const std::vector<std::string>& tokens, const std::vector<Pair>& merges,
                               BpeOptions options) {
  std::vector<std::pair<std::string, int64_t>> entries;
  for (size_t i = 0; i < tokens.size(); ++i) entries.emplace_back(tokens[i], i);
  Vocabulary vocabulary(std::move(entries), "test");
  std::vector<BpeRule> rules = bpe_rules_from_pairs(merges, vocabulary, "test");
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(rules), std::move(options), "test");
}

Ids encode(const TokenModel& model, const std::string& text) {
  Ids ids;
  model.encode(Pieces(text), ids);
  return ids;
}

TEST(BpeModel, FallsBackToBytesThenToOneUnknownForARun) {
  std::vector<std::string> tokens = {"<unk>", "a", "b", "ab"};
  const std::vector<Pair> merges = {{"a", "b"}};
  BpeOptions options;
  options.unk_token = "<unk>";
  EXPECT_EQ(encode(*make(tokens, merges, options), "abéßa"), (Ids{3, 0, 0, 1}));
  options.fuse_unk = true;
  EXPECT_EQ(encode(*make(tokens, merges, options), "éßaé"), (Ids{0, 1, 0}));
  options.byte_fallback = true;
  tokens.push_back("<0xC3>");
  tokens.push_back("<0xA9>");  // é is C3 A9; ß is C3 9F, which stays unknown
  EXPECT_EQ(encode(*make(tokens, merges, options), "aéßßb"), (Ids{1, 4, 5, 0, 2}));
  options = {};
  EXPECT_EQ(encode(*make(tokens, merges, options), "aéb"), (Ids{3}))
      << "without unk_token it vanishes before merging";
}

TEST(BpeModel, IgnoresMergesForPiecesThatAreTokens) {
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "abc"};
  BpeOptions options;
  EXPECT_EQ(encode(*make(tokens, {{"a", "b"}}, options), "abc"), (Ids{3, 2}));
  options.ignore_merges = true;
  EXPECT_EQ(encode(*make(tokens, {{"a", "b"}}, options), "abc"), (Ids{4}));
}

TEST(BpeModel, GivesTheSameIdsWhetherOrNotItMayCutAtSpaceMarkers) {
  // The last rule joins across a marker, which forbids cutting there.
  const std::vector<std::string> tokens = {"▁", "a", "b", "▁a", "▁▁", "▁▁a", "a▁"};
  const std::vector<Pair> within = {{"▁", "▁"}, {"▁", "a"}, {"▁", "▁a"}};
  std::vector<Pair> across = {{"a", "▁"}};
  const auto cut = make(tokens, within, {});
  std::vector<BpeRule> rules = bpe_rules_from_pairs(within, cut->vocabulary(), "test");
  for (const std::string text : {"▁a▁b▁▁a", "▁▁▁a▁ab▁", "ab▁▁▁▁a"}) {
    Ids symbols;
    for (size_t at = 0; at < text.size(); at += text[at] == 'a' || text[at] == 'b' ? 1 : 3)
      symbols.push_back(text[at] == 'a' ? 1 : text[at] == 'b' ? 2 : 0);
    EXPECT_EQ(encode(*cut, text), naive_merge(rules, symbols)) << text;
  }
  EXPECT_EQ(encode(*make(tokens, across, {}), "a▁a▁"), (Ids{6, 6}));
}

TEST(BpeModel, NamesTheTokenThatAMergeMisses) {
  try {
    make({"a", "b"}, {{"a", "b"}}, {});
    FAIL();
  } catch (const FileError& error) {
    EXPECT_STREQ(error.what(),
                 "test: merge 0, \"a\" and \"b\", names \"ab\", which is not in the vocabulary");
  }
}

TEST(BpeModel, TakesNLogNStepsForAWordOfAMillionCharacters) {
  std::vector<std::string> tokens = {"a"};
  std::vector<Pair> merges;
  for (int i = 0; i < 6; ++i) {
    merges.emplace_back(tokens.back(), tokens.back());
    tokens.push_back(tokens.back() + tokens.back());
  }
  const auto model = make(tokens, merges, {});
  // A merge in quadratic time would take hours, and the test runner would end it.
  EXPECT_EQ(encode(*model, std::string(1 << 20, 'a')), Ids((1 << 20) / 64, 6));
}

TEST(BpeModel, IsSafeFromSeveralThreads) {
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "abc", "ca"};
  const auto model = make(tokens, {{"a", "b"}, {"ab", "c"}, {"c", "a"}}, {});
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      const std::vector<BpeRule> rules = {{0, 1, 0, 3}, {3, 2, 1, 4}, {2, 0, 2, 5}};
      for (int i = 0; i < 2000; ++i) {
        std::string word;
        Ids symbols;
        for (size_t n = 1 + random() % 8; n > 0; --n) {
          symbols.push_back(static_cast<int32_t>(random() % 3));
          word.push_back(static_cast<char>('a' + symbols.back()));
        }
        wrong[t] += encode(*model, word) != naive_merge(rules, symbols);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(ByteAlphabet, IsThatOfGpt2AndGoesBothWays) {
  EXPECT_EQ(to_byte_alphabet(" \n\t!~"), "ĠĊĉ!~");
  EXPECT_EQ(to_byte_alphabet(std::string("\x00\x7F\xA0\xAD\xFF", 5)), "ĀġłŃÿ");
  std::string all;
  for (int b = 0; b < 256; ++b) all.push_back(static_cast<char>(b));
  EXPECT_EQ(from_byte_alphabet(to_byte_alphabet(all)), all);
  EXPECT_EQ(from_byte_alphabet("a b"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("▁"), std::nullopt);
}

}  // namespace
}  // namespace trireme
