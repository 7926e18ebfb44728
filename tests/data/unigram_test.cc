#include <gtest/gtest.h>

#include <random>

#include "base/files.h"
#include "base/json.h"
#include "data/precompiled_normalizer.h"
#include "data/tokenizer_files.h"
#include "data/tokenizer_json.h"
#include "data/unigram_model.h"
#include "data/unigram_tokenizer.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;

UnigramModel model(std::vector<std::pair<std::string, double>> pieces, bool byte_fallback = false) {
  std::vector<std::pair<std::string, int64_t>> entries{{"<unk>", 0}};
  std::vector<double> scores{0};
  for (auto& [token, score] : pieces) {
    entries.emplace_back(token, static_cast<int64_t>(entries.size()));
    scores.push_back(score);
  }
  return UnigramModel(Vocabulary(std::move(entries), "m"), std::move(scores),
                      {.byte_fallback = byte_fallback}, "m");
}

Ids encode(const UnigramModel& model, const std::string& text) {
  Ids ids;
  model.encode(Pieces(text), ids);
  std::vector<TokenSpan> spans;
  model.encode_spans(text, spans);
  Ids from_spans;
  for (const TokenSpan& span : spans) from_spans.push_back(span.id);
  EXPECT_EQ(from_spans, ids);
  return ids;
}

// All ways to cut, as an oracle: the greatest sum.
double best_sum(const std::vector<double>& scores, const Vocabulary& vocabulary, double unknown,
                std::string_view text) {
  if (text.empty()) return 0;
  double best = -1e300;
  for (size_t length = 1; length <= text.size(); ++length) {
    const auto id = vocabulary.find(text.substr(0, length));
    if (!id && length > 1) continue;
    const double score = id ? scores[static_cast<size_t>(*id)] : unknown;
    best = std::max(best, score + best_sum(scores, vocabulary, unknown, text.substr(length)));
  }
  return best;
}

TEST(Unigram, TakesTheCutOfTheGreatestSum) {
  const UnigramModel m = model({{"a", -1}, {"b", -1}, {"ab", -1.5}, {"abc", -9}, {"c", -1}, {"bc", -1.25}});
  EXPECT_EQ(encode(m, "abc"), (Ids{1, 6})) << "-2.25, better than ab c with -2.5 and abc with -9";
  EXPECT_EQ(encode(m, "ab"), (Ids{3}));
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::pair<std::string, double>> pieces;
    std::vector<double> scores{0};
    std::vector<std::pair<std::string, int64_t>> entries{{"<unk>", 0}};
    for (const char* token : {"a", "b", "aa", "ab", "ba", "bb", "aba", "bab", "aab"})
      if (random() % 3) {
        pieces.emplace_back(token, -static_cast<double>(random() % 1000) / 100);
        entries.emplace_back(token, static_cast<int64_t>(entries.size()));
        scores.push_back(pieces.back().second);
      }
    const UnigramModel drawn = model(pieces);
    const Vocabulary vocabulary(entries, "oracle");
    const double unknown = *std::min_element(scores.begin(), scores.end()) - 10;
    std::string text(1 + random() % 9, 'a');
    for (char& c : text) c = "ab"[random() % 2];
    std::vector<TokenSpan> spans;
    drawn.encode_spans(text, spans);
    double sum = 0;
    for (const TokenSpan& span : spans)
      sum +=
          span.id == 0 ? unknown * (span.bytes.end - span.bytes.begin) : scores[static_cast<size_t>(span.id)];
    EXPECT_NEAR(sum, best_sum(scores, vocabulary, unknown, text), 1e-9) << text;
  }
}

TEST(Unigram, UnknownNeighboursAreOneTokenOrTheirBytes) {
  const UnigramModel plain = model({{"a", -1}});
  EXPECT_EQ(encode(plain,
                   "a\xC3\xA9\xE4\xB8\xAD"
                   "a"),
            (Ids{1, 0, 1}));
  std::vector<TokenSpan> spans;
  plain.encode_spans(
      "a\xC3\xA9\xE4\xB8\xAD"
      "a",
      spans);
  EXPECT_EQ(spans[1].bytes, (ByteRange{1, 6}));
  const UnigramModel bytes = model({{"a", -1}, {"<0xC3>", -2}, {"<0xA9>", -2}}, true);
  EXPECT_EQ(encode(bytes, "a\xC3\xA9"), (Ids{1, 2, 3}));
  EXPECT_EQ(encode(bytes, "\xC3\xA9\xC3\xA8"), (Ids{0}))
      << "no token for the byte A8: all of the run is unknown";
  EXPECT_EQ(encode(bytes, "<unk>"), (Ids{0}));
}

TEST(Unigram, LongTextsTakeLinearTime) {
  const UnigramModel m = model({{"a", -1}, {"aa", -1.5}, {std::string(200, 'a'), -2}});
  EXPECT_EQ(encode(m, std::string(1000000, 'a')).size(), 5000u);
  EXPECT_EQ(encode(m, std::string(1000000, 'b')), (Ids{0}));
}

const std::string kJson = R"({"added_tokens":[{"id":0,"content":"<unk>","special":true,"normalized":false}],
  "normalizer":NORMALIZER,"pre_tokenizer":{"type":"Metaspace"},"post_processor":null,"decoder":{"type":"Metaspace"},
  "model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["▁",-3],["a",-2.5],["▁a",-2],["b",-3]]}})";

Tokenizer parse(std::string json, const std::string& from = "", const std::string& to = "") {
  const std::string mark = "NORMALIZER";
  if (from != mark) json.replace(json.find(mark), mark.size(), "null");
  if (!from.empty()) json.replace(json.find(from), from.size(), to);
  return read_tokenizer_json(parse_json(json, "t.json"), "t.json");
}
std::string message(const std::string& from, const std::string& to) {
  try {
    parse(kJson, from, to);
  } catch (const FileError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Unigram, IsReadFromJsonAndNamesWhatIsWrong) {
  EXPECT_EQ(parse(kJson).encode("a b"), (Ids{3, 1, 4}));
  EXPECT_EQ(parse(kJson).decode(Ids{3, 1, 4}), "a b");
  EXPECT_EQ(message("\"unk_id\":0", "\"unk_id\":5"),
            "t.json: model.unk_id is the number 5; it must be an integer in [0, 4]");
  EXPECT_EQ(message("[\"b\",-3]", "[\"a\",-3]"), "t.json: model.vocab: token \"a\" has both ids 2 and 4");
  EXPECT_EQ(message("[\"b\",-3]", "[\"b\"]"),
            "t.json: model.vocab[4] is an array of 1; it must be [token, score]");
  EXPECT_NE(message("[\"b\",-3]", "[\"b\",\"x\"]").find("model.vocab[4]"), std::string::npos);
  EXPECT_EQ(message("[\"b\",-3]", "[\"" + std::string(1025, 'x') + "\",-3]"),
            "t.json: model.vocab: the token of id 4 has 1025 bytes; at most 1024 are supported");
  EXPECT_EQ(message("{\"type\":\"Metaspace\"},\"post", "{\"type\":\"ByteLevel\"},\"post"),
            "t.json: model.type \"Unigram\" is not supported behind a ByteLevel pre-tokenizer");
}

// --- Precompiled ---

std::string u32(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}
// A trie of 512 units with one entry, "a" -> the replacement at `place`, and the replacements.
std::string table(uint32_t place, const std::string& replacements, uint32_t root = 256u << 10,
                  uint32_t leaf_offset = 1) {
  std::vector<uint32_t> units(512);
  units[0] = root;                                      // children at 256 ^ byte
  units[256 ^ 'a'] = 'a' | 1 << 8 | leaf_offset << 10;  // with a leaf
  units[(256 ^ 'a') ^ leaf_offset] = 1u << 31 | place;
  std::string bytes = u32(4 * 512);
  for (uint32_t unit : units) bytes += u32(unit);
  return bytes + replacements;
}

std::string normalized(const std::string& bytes, const std::string& text) {
  AlignedText aligned = AlignedText::tracked(text, false);
  PrecompiledNormalizer(bytes, "t").normalize(aligned);
  return aligned.text();
}
std::string table_message(const std::string& bytes) {
  try {
    PrecompiledNormalizer(bytes, "t");
  } catch (const FileError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Precompiled, ReplacesCharactersAndSmallClusters) {
  const std::string zero(1, '\0');
  EXPECT_EQ(normalized(table(1, "y" + zero), "banana"), "bnn") << "by the empty text that stands at byte 1";
  EXPECT_EQ(normalized(table(0, "xy" + zero), "ba\xCC\x81!"), "bxy!") << "the cluster goes as a whole";
  EXPECT_EQ(normalized(table(0, "xy" + zero), "a\xCC\x81\xCC\x81\xCC\x81"), "xy\xCC\x81\xCC\x81\xCC\x81")
      << "a large cluster by its characters";
  AlignedText aligned = AlignedText::tracked("ba!", false);
  PrecompiledNormalizer(table(0, "xyz" + zero), "t").normalize(aligned);
  EXPECT_EQ(aligned.original(1, 4), (ByteRange{1, 2}));
  EXPECT_EQ(aligned.original(4, 5), (ByteRange{2, 3}));
}

TEST(Precompiled, RefusesDamagedTables) {
  const std::string zero(1, '\0');
  EXPECT_EQ(table_message(table(0, "x" + zero)), "nothing was thrown");
  EXPECT_EQ(table_message("abc"), "t: a table of 3 bytes is cut short");
  EXPECT_EQ(table_message(u32(8) + u32(0)), "t: the table says that 8 bytes are its trie, of 4");
  EXPECT_EQ(table_message(table(9, "x" + zero)),
            "t: the replacement at byte 9 of 2 has no end within 256 bytes");
  EXPECT_EQ(table_message(table(0, "x")), "t: the replacement at byte 0 of 1 has no end within 256 bytes");
  EXPECT_EQ(table_message(table(0, "\xFF" + zero)), "t: the replacement at byte 0 is not UTF-8");
  EXPECT_EQ(table_message(table(0, std::string(300, 'x') + zero)),
            "t: the replacement at byte 0 of 301 has no end within 256 bytes");
  EXPECT_EQ(table_message(table(0, "x" + zero, 600u << 10)), "t: the trie points to unit 600 of 512");
  // The child's children are the root's.
  EXPECT_EQ(table_message(table(0, "x" + zero, 256u << 10, 'a')), "t: the trie goes in a circle at unit 256");
  EXPECT_EQ(table_message(std::string((4 << 20) + 1, 'x')),
            "t: a table of 4194305 bytes; at most 4194304 are supported");
}

TEST(Precompiled, SurvivesRandomDamage) {
  const std::string good = table(0, std::string("xy\0z\0", 5));
  std::mt19937 random(6);
  int read = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (size_t n = 1 + random() % 40; n > 0; --n)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      normalized(bytes, "ba\xCC\x81 na" + std::string(1, static_cast<char>(random() % 128)));
      ++read;
    } catch (const FileError&) {
    }
  }
  EXPECT_GT(read, 100);
}

TEST(Precompiled, Base64GoesBothWays) {
  for (const std::string& bytes : {std::string(), std::string("a"), std::string("ab"), std::string("abc"),
                                   std::string("\0\xFF\x80~", 4)})
    EXPECT_EQ(decode_base64(encode_base64(bytes), "t"), bytes);
  EXPECT_EQ(encode_base64("abcd"), "YWJjZA==");
  for (const char* bad : {"YWJ", "YW=j", "Y===", "YW j", "YWJj=WJj"})
    EXPECT_THROW(decode_base64(bad, "t"), FileError) << bad;
}

// --- SentencePiece models ---

SentencePieceFile file_of(std::vector<SentencePieceFile::Piece> pieces) {
  SentencePieceFile file;
  file.pieces = std::move(pieces);
  file.bos_id = 1;
  file.eos_id = 2;
  return file;
}
using Type = SentencePieceFile::Type;
const std::vector<SentencePieceFile::Piece> kPieces = {
    {"<unk>", 0, Type::kUnknown}, {"<s>", 0, Type::kControl}, {"</s>", 0, Type::kControl},
    {"▁", -3, Type::kNormal},     {"▁a", -2, Type::kNormal},  {"b", -2, Type::kNormal},
    {"3,", -1, Type::kNormal},    {"3", -4, Type::kNormal},   {",", -4, Type::kNormal}};

TEST(UnigramTokenizer, HasTheFormOfItsFamily) {
  const Tokenizer plain = unigram_tokenizer(file_of(kPieces), {.add_bos = true}, "m");
  EXPECT_EQ(plain.encode("a  b"), (Ids{1, 4, 3, 5}));
  EXPECT_EQ(plain.encode_pair("a", "a").ids, (Ids{1, 4, 1, 4}));
  const Tokenizer t5 =
      unigram_tokenizer(file_of(kPieces), {.family = UnigramFamily::kT5, .extra_ids = 3}, "m");
  EXPECT_EQ(t5.encode("a <extra_id_0>"), (Ids{4, 11, 2}));
  EXPECT_EQ(t5.encode_pair("a", "a").ids, (Ids{4, 2, 4, 2}));
  const Tokenizer xlmr = unigram_tokenizer(file_of(kPieces), {.family = UnigramFamily::kXlmRoberta}, "m");
  EXPECT_EQ(xlmr.encode("a <mask>x"), (Ids{0, 5, 10, 4, 3, 2}));
  EXPECT_EQ(xlmr.encode_pair("a", "a").ids, (Ids{0, 5, 2, 2, 5, 2}));
  EXPECT_EQ(xlmr.pad_id(), 1);
  EXPECT_EQ(xlmr.unk_id(), 3);
  auto pieces = kPieces;
  pieces.push_back({"[CLS]", 0, Type::kControl});
  pieces.push_back({"[SEP]", 0, Type::kControl});
  const Tokenizer albert = unigram_tokenizer(file_of(pieces), {.family = UnigramFamily::kAlbert}, "m");
  EXPECT_EQ(albert.encode("\xC3\x84 3,"), (Ids{9, 4, 3, 7, 8, 10}))
      << "lower case, no accent, a comma by itself";
  EXPECT_EQ(albert.encode_pair("a", "a").type_ids, (Ids{0, 0, 0, 1, 1}));
  EXPECT_EQ(plain.encode("3,"), (Ids{1, 3, 6}));
}

TEST(UnigramTokenizer, RefusesWhatItCannotFollow) {
  const auto message = [](const SentencePieceFile& file, UnigramUse use) -> std::string {
    try {
      unigram_tokenizer(file, use, "m");
    } catch (const FileError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(message(file_of(kPieces), {.family = UnigramFamily::kAlbert}),
            "m: the token \"[CLS]\", which stands beside a text, is not there");
  auto pieces = kPieces;
  std::swap(pieces[0], pieces[1]);
  EXPECT_EQ(message(file_of(pieces), {.family = UnigramFamily::kXlmRoberta}),
            "m: piece 0 is not \"<unk>\", as in XLM-RoBERTa's models");
  SentencePieceFile file = file_of(kPieces);
  file.precompiled_charsmap = "xyz";
  EXPECT_EQ(message(file, {}),
            "m: normalizer.normalizers[0].precompiled_charsmap: a table of 3 bytes is cut short");
  file = file_of(kPieces);
  file.treat_whitespace_as_suffix = true;
  EXPECT_EQ(message(file, {}), "m: treat_whitespace_as_suffix is not supported");
  file = file_of(kPieces);
  file.bos_id = -1;
  EXPECT_EQ(message(file, {.add_bos = true}),
            "m: the configuration wants a bos token, but the model has none");
  file.kind = SentencePieceFile::Kind::kBpe;
  EXPECT_EQ(message(file, {}), "m: is a SentencePiece model of another type than Unigram");
}

TEST(PublishedAlbert, EncodesAndIsTheSameWhenSaved) {
  const auto path = testing::sample_data("tok-spm-fixtures/albert_spiece.model");
  TRIREME_SKIP_WITHOUT(path);
  const Tokenizer albert = load_tokenizer(path);
  // As tokenizers 0.23.3 has it, from the parts that transformers makes of this model.
  const std::string text = "Hello ``world'', ﬁne Café № 3, 1,000 [MASK] 中";
  const Encoding e = albert.encode_with_offsets(text);
  const testing::TempDir folder;
  save_tokenizer(albert, folder.path());
  const Tokenizer again = load_tokenizer(folder.path());
  EXPECT_EQ(again.encode_with_offsets(text), e);
  EXPECT_EQ(again.special(), albert.special());
  EXPECT_EQ(albert.encode(text), e.ids);
  EXPECT_EQ(e.ids, (Ids{2, 10975, 13, 7, 4423, 7, 15, 1123, 6241, 90, 203, 15, 5925, 4, 13, 1, 3}));
  EXPECT_EQ(e.ranges[3], (ByteRange{7, 8})) << "the last of the two that became one";
}

TEST(HostileModels, RandomTextsHaveRangesInOrder) {
  for (const char* name : {"bert.json", "roberta.json", "unigram.json"}) {
    const Tokenizer tokenizer = load_tokenizer(testing::fixture("tokenizers") / name);
    std::mt19937 random(12);
    for (int round = 0; round < 400; ++round) {
      std::string bytes(random() % 60, '\0');
      for (char& c : bytes) c = static_cast<char>(random() % (round % 2 ? 256 : 128));
      const Encoding e = tokenizer.encode_with_offsets(bytes);
      EXPECT_EQ(e.ids, tokenizer.encode(bytes)) << name;
      for (size_t i = 0; i < e.size(); ++i) {
        EXPECT_LE(e.ranges[i].begin, e.ranges[i].end);
        EXPECT_LE(e.ranges[i].end, bytes.size());
      }
    }
  }
}

}  // namespace
}  // namespace trireme
