#include "data/pretokenizer.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "data/pretokenizer_scan.h"
#include "data/unicode.h"

namespace trireme {
namespace {

using Strings = std::vector<std::string>;

template <class Scan>
Strings pieces_of(std::string_view text, Scan&& scan) {
  std::vector<size_t> ends;
  scan(text, size_t{100}, ends);
  Strings pieces;
  size_t begin = 100;
  for (size_t end : ends) {
    pieces.emplace_back(text.substr(begin - 100, end - begin));
    begin = end;
  }
  return pieces;
}
Strings gpt2(std::string_view text) { return pieces_of(text, scan_gpt2); }
Strings cl100k(std::string_view text, int max_digits = 3) {
  return pieces_of(text, [&](std::string_view t, size_t base, std::vector<size_t>& ends) {
    scan_cl100k(t, base, max_digits, ends);
  });
}

Strings split(const std::string& config, const std::string& text, bool at_start = true) {
  const boost::json::value value = parse_json(config, "test");
  Pieces pieces(text, at_start);
  make_pre_tokenizer(value.as_object(), "test")->split(pieces);
  Strings out;
  pieces.for_each([&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

TEST(Gpt2Scan, SplitsLettersNumbersAndOthersEachWithOneSpace) {
  EXPECT_EQ(gpt2("Hello world 12ab!? x"), (Strings{"Hello", " world", " 12", "ab", "!?", " x"}));
  EXPECT_EQ(gpt2("größe ½٣ 日本語"), (Strings{"größe", " ½٣", " 日本語"}));
}

TEST(Gpt2Scan, LeavesTheLastSpaceOfARunToTheNextWord) {
  EXPECT_EQ(gpt2("a   b"), (Strings{"a", "  ", " b"}));
  EXPECT_EQ(gpt2("a \n b"), (Strings{"a", " \n", " b"}));
  EXPECT_EQ(gpt2("a\n\nb"), (Strings{"a", "\n", "\n", "b"}));
  EXPECT_EQ(gpt2("a  \xC2\xA0"
                 "b"),
            (Strings{"a", "  ", "\xC2\xA0", "b"}));
  EXPECT_EQ(gpt2("a  "), (Strings{"a", "  "}));
}

TEST(Gpt2Scan, TakesContractionsInLowerCaseOnly) {
  EXPECT_EQ(gpt2("I'll we've'd"), (Strings{"I", "'ll", " we", "'ve", "'d"}));
  EXPECT_EQ(gpt2("I'LL 's"), (Strings{"I", "'", "LL", " '", "s"}));
  EXPECT_EQ(gpt2("'"), (Strings{"'"}));
  EXPECT_EQ(gpt2("'l"), (Strings{"'", "l"}));
}

TEST(Gpt2Scan, TreatsBytesThatAreNoCharacterAsOthers) {
  EXPECT_EQ(gpt2("a\xFF\xC3 b"), (Strings{"a", "\xFF\xC3", " b"}));
}

TEST(Cl100kScan, GroupsDigitsByThreeOrOne) {
  EXPECT_EQ(cl100k("x12345"), (Strings{"x", "123", "45"}));
  EXPECT_EQ(cl100k("x123", 1), (Strings{"x", "1", "2", "3"}));
  EXPECT_EQ(cl100k(" 12"), (Strings{" ", "12"}));
}

TEST(Cl100kScan, TakesContractionsInAnyCaseAndTheLongS) {
  EXPECT_EQ(cl100k("I'LLx"), (Strings{"I", "'LL", "x"}));
  EXPECT_EQ(cl100k("'\xC5\xBF"
                   "abc"),
            (Strings{"'\xC5\xBF", "abc"}));
  EXPECT_EQ(cl100k("'abc"), (Strings{"'abc"}));
}

TEST(Cl100kScan, KeepsLineEndsWithPunctuationAndCutsRunsAfterTheLastLineEnd) {
  EXPECT_EQ(cl100k("  !!\n\n a"), (Strings{" ", " !!\n\n", " a"}));
  EXPECT_EQ(cl100k("\n\n  x\n "), (Strings{"\n\n", " ", " x", "\n", " "}));
  EXPECT_EQ(cl100k("(abc \r\n"), (Strings{"(abc", " \r\n"}));
}

TEST(PreTokenizer, MetaspacePrependsAndSplitsBeforeEachSpace) {
  EXPECT_EQ(split(R"({"type":"Metaspace"})", "ab  c"), (Strings{"▁ab", "▁", "▁c"}));
  EXPECT_EQ(split(R"({"type":"Metaspace"})", " ab"), (Strings{"▁ab"}));
  EXPECT_EQ(split(R"({"type":"Metaspace","prepend_scheme":"first","split":false})", "a b"),
            (Strings{"▁a▁b"}));
  EXPECT_EQ(split(R"({"type":"Metaspace","prepend_scheme":"first"})", "a b", false), (Strings{"a", "▁b"}));
  EXPECT_EQ(split(R"({"type":"Metaspace","prepend_scheme":"never"})", "a b"), (Strings{"a", "▁b"}));
}

TEST(PreTokenizer, SplitByStringObeysItsBehaviour) {
  const auto by = [](const char* behaviour) {
    return split(text(R"({"type":"Split","pattern":{"String":"e"},"behavior":")", behaviour, "\"}"),
                 "ewhere");
  };
  EXPECT_EQ(by("Isolated"), (Strings{"e", "wh", "e", "r", "e"}));
  EXPECT_EQ(by("Removed"), (Strings{"wh", "r"}));
  EXPECT_EQ(by("MergedWithPrevious"), (Strings{"e", "whe", "re"}));
  EXPECT_EQ(by("MergedWithNext"), (Strings{"ewh", "er", "e"}));
}

TEST(PreTokenizer, DigitsComeInRunsOrAlone) {
  EXPECT_EQ(split(R"({"type":"Digits"})", "a12½ b3"), (Strings{"a", "12½", " b", "3"}));
  EXPECT_EQ(split(R"({"type":"Digits","individual_digits":true})", "a12"), (Strings{"a", "1", "2"}));
  EXPECT_EQ(split(R"({"type":"WhitespaceSplit"})", " a\t bc\n"), (Strings{"a", "bc"}));
}

TEST(PreTokenizer, ByteLevelAddsASpaceOnlyWhereThereIsNone) {
  const std::string config = R"({"type":"ByteLevel","add_prefix_space":true})";
  EXPECT_EQ(split(config, "ab c"), (Strings{" ab", " c"}));
  EXPECT_EQ(split(config, " ab"), (Strings{" ab"}));
  EXPECT_EQ(split(config, "\nab"), (Strings{" ", "\n", "ab"}));
}

TEST(PreTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto message = [](const std::string& config) -> std::string {
    try {
      split(config, "x");
    } catch (const FileError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(message(R"({"type":"Split","pattern":{"Regex":"[a-z]+"},"behavior":"Isolated"})").find("[a-z]+"),
            std::string::npos);
  EXPECT_EQ(message(R"({"type":"Chinese"})"), "test: pre_tokenizer.type \"Chinese\" is not supported");
  EXPECT_NE(message(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})")
                .find("must have ByteLevel last"),
            std::string::npos);
  EXPECT_NE(message(R"({"type":"Metaspace","replacement":"ab"})").find("must be one character"),
            std::string::npos);
}

TEST(Unicode, ReplacesEachMaximalMalformedPart) {
  // The example of Unicode 15, table 3-8.
  EXPECT_EQ(replace_malformed_utf8("\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"), "���b�c��d");
  EXPECT_EQ(replace_malformed_utf8("\xC0\xAF\xED\xA0\x80"), "�����");
  EXPECT_EQ(replace_malformed_utf8("größe\xF0\x9F"), "größe�");
}

TEST(Unicode, KnowsTheClassesOfCharacters) {
  EXPECT_EQ(char_class(U'ß'), CharClass::kLetter);
  EXPECT_EQ(char_class(U'ʰ'), CharClass::kLetter);  // Lm
  EXPECT_EQ(char_class(U'Ⅳ'), CharClass::kNumber);  // Nl
  EXPECT_EQ(char_class(0x3000), CharClass::kSpace);
  EXPECT_EQ(char_class(0x200B), CharClass::kOther);  // a format character, not white space
  EXPECT_EQ(char_class(0x301), CharClass::kOther);   // Mn
  EXPECT_EQ(char_class(kNoCodePoint), CharClass::kOther);
}

TEST(Unicode, NormalizesAndLowersCase) {
  EXPECT_EQ(normalize_unicode("e\xCC\x81", NormalForm::kNfc), "é");
  EXPECT_EQ(normalize_unicode("é", NormalForm::kNfd), "e\xCC\x81");
  EXPECT_EQ(normalize_unicode("ﬁ①", NormalForm::kNfkc), "fi1");
  std::string lower;
  for (const uint32_t c : {0xC0u, 0x3A3u, 0x130u, uint32_t{'1'}}) append_lowercase(lower, c);
  EXPECT_EQ(lower,
            "àσi\xCC\x87"
            "1");
}

}  // namespace
}  // namespace trireme
