#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/files.h"
#include "data/sentencepiece_file.h"
#include "data/sentencepiece_tokenizer.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string field(int number, uint64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(value);
}
std::string field(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string field_f32(int number, float value) {
  char bytes[4];
  std::memcpy(bytes, &value, 4);
  return varint(static_cast<uint64_t>(number) << 3 | 5) + std::string(bytes, 4);
}
std::string piece(const std::string& text, float score, int type = 1) {
  return field(1, field(1, text) + field_f32(2, score) + field(3, static_cast<uint64_t>(type)));
}
constexpr uint64_t kNone = ~uint64_t{0};  // -1 as a varint

const std::string kHead = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
const std::string kLetters = piece("▁", -10) + piece("a", -11) + piece("b", -12) + piece("c", -13);
const std::string kTrainer = field(2, field(3, 2) + field(43, kNone));
const std::string kNormalizer = field(3, field(1, std::string("identity")) + field(4, 0));

Tokenizer make(const std::string& bytes, bool bos = false, bool eos = false) {
  return sentencepiece_tokenizer(parse_sentencepiece(bytes, "m.model"), bos, eos, "m.model");
}

std::string message(const std::string& bytes) {
  try {
    make(bytes);
  } catch (const FileError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(SentencePieceBpe, MergesByScoreThenFromTheLeft) {
  // Scores, not places, say which goes first: "bc" (id 8) beats "ab" (id 7).
  const std::string bytes =
      kHead + kLetters + piece("ab", -2) + piece("bc", -1) + piece("▁a", -3) + kTrainer + kNormalizer;
  const Tokenizer tokenizer = make(bytes);
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{9, 8}));
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{3, 7}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode("aé中b"), (Ids{9, 0, 5})) << "one unknown for a run";
  EXPECT_EQ(make(bytes, true, true).encode("a</s>b"), (Ids{1, 9, 2, 3, 5, 2}));
  EXPECT_EQ(tokenizer.decode(Ids{9, 8, 3, 7}), "abc ab");
}

TEST(SentencePieceBpe, OfEqualScoresTheLeftmostPairGoesFirst) {
  const std::string bytes = kHead + kLetters + piece("ab", -1) + piece("bc", -1) + kTrainer + kNormalizer;
  const Tokenizer tokenizer = make(bytes);
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{3, 7, 6}));
  EXPECT_EQ(tokenizer.encode("cbc"), (Ids{3, 6, 8}));
}

TEST(SentencePieceBpe, UserDefinedPiecesAreFoundInTextAndNotMerged) {
  const std::string bytes = kHead + kLetters + piece("abc", 0, 4) + piece("ab", -1) + kTrainer + kNormalizer;
  const Tokenizer tokenizer = make(bytes);
  EXPECT_EQ(tokenizer.encode("abca"), (Ids{7, 3, 4}));
  EXPECT_FALSE(tokenizer.is_special(7));
  EXPECT_TRUE(tokenizer.is_special(1));
}

TEST(SentencePieceFile, RefusesWhatIsMalformed) {
  const std::string good = kHead + kLetters + kTrainer + kNormalizer;
  EXPECT_EQ(message(good), "nothing was thrown");
  EXPECT_EQ(message(""), "m.model: holds no pieces; this is no SentencePiece model");
  EXPECT_NE(message("{\"model\": 1}").find("m.model: byte "), std::string::npos);
  EXPECT_NE(message(good + piece("a", -1)).find("piece \"a\" is there twice"), std::string::npos);
  EXPECT_NE(message(good + piece("x", 0, 2)).find("pieces 0 and 7 are both of type unknown"),
            std::string::npos);
  EXPECT_NE(message(kLetters + kTrainer).find("no piece is of type unknown"), std::string::npos);
  EXPECT_NE(message(good + piece("x", 0, 9)).find("a piece of the unknown type 9"), std::string::npos);
  EXPECT_NE(message(good + piece("", 0)).find("an empty piece"), std::string::npos);
  EXPECT_NE(message(good + piece("\xFF", 0)).find("not UTF-8"), std::string::npos);
  EXPECT_NE(message(good + piece("x", NAN)).find("has the score nan"), std::string::npos);
  EXPECT_NE(message(good + field(1, field(1, 5))).find("field 1 has wire type 0 instead of 2"),
            std::string::npos);
  EXPECT_NE(message(good + varint(3 << 3 | 2) + varint(kNone)).find("field 3 of 18446744073709551615 bytes"),
            std::string::npos);
  EXPECT_NE(message(good + varint(9 << 3 | 3)).find("wire type 3"), std::string::npos);
  EXPECT_NE(message(good + std::string(11, '\xFF')).find("a number beyond 64 bits"), std::string::npos);
  for (size_t length = 1; length < good.size(); ++length) message(good.substr(0, length));  // no crash
}

TEST(SentencePieceFile, SurvivesRandomDamage) {
  const std::string good = kHead + kLetters + piece("ab", -1) + kTrainer + kNormalizer;
  std::mt19937 random(4);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (size_t n = 1 + random() % 3; n > 0; --n)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    message(bytes);
  }
}

TEST(SentencePieceBpe, RefusesWhatItCannotFollow) {
  const std::string pieces = kHead + kLetters;
  EXPECT_EQ(message(pieces + field(2, field(3, 1)) + kNormalizer),
            "m.model: is a SentencePiece model of type Unigram, not of type BPE");
  EXPECT_NE(message(pieces + kTrainer + field(3, field(4, 1))).find("remove_extra_whitespaces"),
            std::string::npos);
  EXPECT_NE(
      message(pieces + kTrainer + field(3, field(1, std::string("nmt_nfkc")) + field(2, std::string("xx"))))
          .find("the normalization \"nmt_nfkc\""),
      std::string::npos);
  EXPECT_NE(message(pieces + piece("x", 0, 5) + kTrainer + kNormalizer).find("of type unused"),
            std::string::npos);
  EXPECT_NE(
      message(pieces + field(2, field(3, 2) + field(24, 1)) + kNormalizer).find("treat_whitespace_as_suffix"),
      std::string::npos);
}

TEST(SentencePieceFile, AUnigramModelIsReadWhole) {
  const auto path = testing::sample_data("tok-spm-fixtures/albert_spiece.model");
  TRIREME_SKIP_WITHOUT(path);
  const SentencePieceFile file = parse_sentencepiece(read_text_file(path, 1 << 24), "albert");
  EXPECT_EQ(file.pieces.size(), 30000u);
  EXPECT_EQ(file.unk_id, 1);
  EXPECT_EQ(file.bos_id, -1);
  EXPECT_EQ(file.pad_id, 0);
  EXPECT_EQ(file.normalizer_name, "nmt_nfkc");
  EXPECT_FALSE(file.precompiled_charsmap.empty());
}

}  // namespace
}  // namespace trireme
