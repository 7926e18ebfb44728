#include <gtest/gtest.h>

#include "base/files.h"
#include "data/tokenizer_files.h"
#include "data/wordpiece_model.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;
using Ranges = std::vector<ByteRange>;

// Ids by line: 0 [PAD], 1 [UNK], 2 [CLS], 3 [SEP], 4 [MASK], 5 ...
const std::string kVocab =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nhello\nh\n##e\n##llo\n,\n!"
    "\ncafe\n中\n文\n\xD0\xB9\n";

Tokenizer load(const std::string& vocab, const std::string& config = "") {
  const testing::TempDir folder;
  write_file_atomically(folder.path() / "vocab.txt", vocab);
  if (!config.empty()) write_file_atomically(folder.path() / "tokenizer_config.json", config);
  return load_tokenizer(folder.path());
}

std::string message(const std::string& vocab, const std::string& config = "") {
  try {
    load(vocab, config);
  } catch (const FileError& error) {
    const std::string what = error.what();
    return what.substr(what.rfind('/') + 1);
  }
  return "nothing was thrown";
}

TEST(WordPiece, TakesTheLongestTokenFromTheFront) {
  const Tokenizer bert = load(kVocab);
  EXPECT_EQ(bert.encode("unaffable hello hello,he"), (Ids{2, 5, 6, 7, 8, 8, 12, 9, 10, 3}));
  EXPECT_EQ(bert.encode("unaffables"), (Ids{2, 1, 3})) << "no token for the rest: all of the word is unknown";
  EXPECT_EQ(bert.encode(""), (Ids{2, 3}));
  EXPECT_EQ(bert.encode("hello [MASK] [mask]!"), (Ids{2, 8, 4, 1, 1, 1, 13, 3}));
  EXPECT_EQ(bert.special().cls, 2);
  EXPECT_EQ(bert.special().sep, 3);
  EXPECT_EQ(bert.pad_id(), 0);
  EXPECT_EQ(bert.special().mask, 4);
}

TEST(WordPiece, WordsOfMoreThanAHundredCharactersAreUnknown) {
  std::string vocab = kVocab + "a\n##a\nй\n";
  vocab.replace(vocab.find("\xD0\xB9\n"), 3, "x\n");
  const Tokenizer bert = load(vocab);
  EXPECT_EQ(bert.encode(std::string(100, 'a')).size(), 102u);
  EXPECT_EQ(bert.encode(std::string(101, 'a')), (Ids{2, 1, 3}));
  const Encoding e = bert.encode_with_offsets(std::string(1000000, 'a'));
  EXPECT_EQ(e.ids, (Ids{2, 1, 3}));
  EXPECT_EQ(e.ranges[1], (ByteRange{0, 1000000}));
}

TEST(WordPiece, NormalizesAsTheConfigurationSays) {
  EXPECT_EQ(load(kVocab).encode("HELLO Cafe\xCC\x81 Café \x01中文"), (Ids{2, 8, 14, 14, 15, 16, 3}));
  EXPECT_EQ(load(kVocab, R"({"do_lower_case":false})").encode("HELLO hello Café"), (Ids{2, 1, 8, 1, 3}));
  EXPECT_EQ(load(kVocab, R"({"do_lower_case":true,"strip_accents":false})").encode("CAFE café"),
            (Ids{2, 14, 1, 3}));
  EXPECT_EQ(load(kVocab, R"({"do_lower_case":false,"strip_accents":true})").encode("café"), (Ids{2, 14, 3}));
  EXPECT_EQ(load(kVocab, R"({"tokenize_chinese_chars":false})").encode("中文 中"), (Ids{2, 1, 15, 3}));
  EXPECT_EQ(load(kVocab + "Hello\n").encode("Hello hello"), (Ids{2, 18, 8, 3}))
      << "a vocabulary with upper-case words is for text as it is";
}

TEST(WordPiece, GivesThePlaceOfEachTokenInTheText) {
  const Tokenizer bert = load(kVocab);
  const std::string text =
      "Un\x01"
      "AFFable, Cafe\xCC\x81 中文[MASK]";
  const Encoding e = bert.encode_with_offsets(text);
  EXPECT_EQ(e.ids, (Ids{2, 5, 6, 7, 12, 14, 15, 16, 4, 3}));
  EXPECT_EQ(
      e.ranges,
      (Ranges{{0, 0}, {0, 2}, {3, 6}, {6, 10}, {10, 11}, {12, 16}, {19, 22}, {22, 25}, {25, 31}, {0, 0}}));
  EXPECT_EQ(e.words, (Ids{-1, 0, 0, 0, 1, 2, 3, 4, 5, -1}));
  EXPECT_EQ(e.sequences, (Ids{-1, 0, 0, 0, 0, 0, 0, 0, 0, -1}));
  EXPECT_EQ(e.type_ids, Ids(10, 0));
  EXPECT_EQ(bert.encode(text), e.ids);
}

TEST(WordPiece, MalformedPartsAreRemovedAndStandNowhere) {
  const Encoding e = load(kVocab).encode_with_offsets("he\xFFllo \xE4\xB8 hello");
  EXPECT_EQ(e.ids, (Ids{2, 8, 8, 3}));
  EXPECT_EQ(e.ranges, (Ranges{{0, 0}, {0, 6}, {10, 15}, {0, 0}}));
}

TEST(WordPiece, PairsCountTheirWordsAnew) {
  const Tokenizer bert = load(kVocab);
  const Encoding e = bert.encode_pair_with_offsets("hello, hello", "he!");
  EXPECT_EQ(e.ids, (Ids{2, 8, 12, 8, 3, 9, 10, 13, 3}));
  EXPECT_EQ(e.words, (Ids{-1, 0, 1, 2, -1, 0, 0, 1, -1}));
  EXPECT_EQ(e.sequences, (Ids{-1, 0, 0, 0, -1, 1, 1, 1, -1}));
  EXPECT_EQ(e.type_ids, (Ids{0, 0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(e.ranges[5], (ByteRange{0, 1}));
  const EncodedPair plain = bert.encode_pair("hello, hello", "he!");
  EXPECT_EQ(plain.ids, e.ids);
  EXPECT_EQ(plain.type_ids, e.type_ids);
}

TEST(WordPiece, EncodesWordsWithTheirNumbers) {
  const std::vector<std::string> words = {"Unaffable", "", "hello,he", "\x01"};
  const Encoding e = load(kVocab).encode_words(words);
  EXPECT_EQ(e.ids, (Ids{2, 5, 6, 7, 8, 12, 9, 10, 3}));
  EXPECT_EQ(e.words, (Ids{-1, 0, 0, 0, 2, 2, 2, 2, -1}));
  EXPECT_EQ(e.ranges, (Ranges{{0, 0}, {0, 2}, {2, 5}, {5, 9}, {0, 5}, {5, 6}, {6, 7}, {7, 8}, {0, 0}}));
}

TEST(WordPiece, PutsTheTemplateAroundPartsOfTexts) {
  const Tokenizer bert = load(kVocab);
  const EncodeOptions bare{.add_special_tokens = false};
  const Encoding question = bert.encode_with_offsets("hello", bare),
                 context = bert.encode_with_offsets("he, he!", bare);
  EXPECT_EQ(bert.num_template_tokens(false), 2u);
  EXPECT_EQ(bert.num_template_tokens(true), 3u);
  EXPECT_EQ(bert.with_template(question, context), bert.encode_pair_with_offsets("hello", "he, he!"));
  EXPECT_EQ(bert.with_template(context), bert.encode_with_offsets("he, he!"));
  const Encoding window = bert.with_template(question, context.part(2, 4));
  EXPECT_EQ(window.ids, (Ids{2, 8, 3, 12, 9, 3}));
  EXPECT_EQ(window.ranges[4], (ByteRange{4, 5}));
  EXPECT_EQ(window.words, (Ids{-1, 0, -1, 1, 2, -1}));
}

TEST(WordPiece, DecodesWordsWithSpacesBetween) {
  const Tokenizer bert = load(kVocab);
  EXPECT_EQ(bert.decode(Ids{2, 5, 6, 7, 8, 13, 3}), "[CLS] unaffable hello! [SEP]");
  EXPECT_EQ(bert.decode(Ids{2, 6, 8, 12, 3}, {.skip_special_tokens = true}), "##aff hello,");
}

TEST(WordPiece, IsTheSameTokenizerWhenSavedAndReadAgain) {
  const Tokenizer bert = load(kVocab, R"({"do_lower_case":true,"strip_accents":false})");
  const testing::TempDir folder;
  save_tokenizer(bert, folder.path());
  EXPECT_EQ(read_text_file(folder.path() / "vocab.txt", 1000), kVocab);
  const std::string text = "HELLO, café he [MASK] 中x";
  const Encoding expected = bert.encode_with_offsets(text);
  EXPECT_EQ(load_tokenizer(folder.path()).encode_with_offsets(text), expected);
  EXPECT_EQ(load_tokenizer(folder.path()).special(), bert.special());
  std::filesystem::remove(folder.path() / "tokenizer.json");
  EXPECT_EQ(load_tokenizer(folder.path()).encode_with_offsets(text), expected) << "from vocab.txt";
}

TEST(WordPiece, NamesWhatIsWrongWithAVocabulary) {
  EXPECT_EQ(message("[UNK]\n\nb\n"), "vocab.txt: line 2 is empty; each line is a token");
  EXPECT_EQ(message(""), "vocab.txt: is empty; each line is a token");
  EXPECT_EQ(message("[UNK]\na\na\n"), "vocab.txt: token \"a\" has both ids 1 and 2");
  EXPECT_EQ(message("[UNK]\n\xFF\n"), "vocab.txt: line 2 is not UTF-8");
  EXPECT_EQ(message("a\nb\n"), "vocab.txt: unk_token \"[UNK]\" is not in the vocabulary");
  EXPECT_EQ(message("[UNK]\n[CLS]\n"),
            "vocab.txt: holds no \"[SEP]\", which BERT's tokenizers put around a text");
  EXPECT_EQ(message("[UNK]\n" + std::string(1025, 'a') + "\n"),
            "vocab.txt: the token of id 1 has 1025 bytes; at most 1024 are supported");
}

TEST(Truncation, TakesFromTheLongerTextFirst) {
  using Lengths = std::pair<size_t, size_t>;
  EXPECT_EQ(truncated_lengths(5, 9, 20, Truncation::kLongestFirst), Lengths(5, 9));
  EXPECT_EQ(truncated_lengths(5, 9, 12, Truncation::kLongestFirst), Lengths(5, 7));
  EXPECT_EQ(truncated_lengths(9, 5, 12, Truncation::kLongestFirst), Lengths(7, 5));
  EXPECT_EQ(truncated_lengths(9, 8, 7, Truncation::kLongestFirst), Lengths(4, 3));
  EXPECT_EQ(truncated_lengths(8, 9, 7, Truncation::kLongestFirst), Lengths(3, 4));
  EXPECT_EQ(truncated_lengths(9, 0, 4, Truncation::kLongestFirst), Lengths(4, 0));
  EXPECT_EQ(truncated_lengths(9, 5, 6, Truncation::kOnlyFirst), Lengths(1, 5));
  EXPECT_EQ(truncated_lengths(9, 5, 10, Truncation::kOnlySecond), Lengths(9, 1));
  try {
    truncated_lengths(9, 5, 9, Truncation::kOnlySecond);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "two texts of 9 and 5 tokens must be cut to 9 by shortening the second alone, which has too "
                 "few; allow "
                 "more tokens or cut both");
  }
}

TEST(Truncation, WindowsCoverAllTokensAndOverlap) {
  const auto windows = [](size_t count, size_t size, size_t overlap) {
    std::vector<std::pair<size_t, size_t>> made;
    for (const TokenWindow& w : token_windows(count, size, overlap)) made.emplace_back(w.begin, w.end);
    return made;
  };
  using Windows = std::vector<std::pair<size_t, size_t>>;
  EXPECT_EQ(windows(10, 4, 1), (Windows{{0, 4}, {3, 7}, {6, 10}}));
  EXPECT_EQ(windows(11, 4, 1), (Windows{{0, 4}, {3, 7}, {6, 10}, {9, 11}}));
  EXPECT_EQ(windows(4, 4, 3), (Windows{{0, 4}}));
  EXPECT_EQ(windows(0, 4, 0), (Windows{{0, 0}}));
  EXPECT_THROW(windows(5, 3, 3), Error);
}

}  // namespace
}  // namespace trireme
