#include "data/token_decoder.h"

#include <gtest/gtest.h>

#include <random>

#include "base/json.h"
#include "base/utf8.h"
#include "data/byte_alphabet.h"

namespace trireme {
namespace {

using Strings = std::vector<std::string>;

TokenDecoder decoder(const std::string& config) {
  const boost::json::value value = parse_json(config, "test");
  return TokenDecoder(value.as_object(), "test");
}

// What each push gives, and last what finish gives.
Strings steps(const TokenDecoder& decoder, const Strings& tokens, bool keep_malformed = false) {
  DecoderRun run = decoder.start(keep_malformed);
  Strings out;
  for (const std::string& token : tokens) {
    run.push(token);
    out.push_back(run.take());
  }
  run.finish();
  out.push_back(run.take());
  return out;
}

std::string joined(const Strings& parts) {
  std::string out;
  for (const std::string& part : parts) out += part;
  return out;
}

const char* const kLlama =
    R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
  {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})";

TEST(TokenDecoder, LlamaLosesOneLeadingSpaceOfTheWholeText) {
  EXPECT_EQ(steps(decoder(kLlama), {"▁Hello", "▁world", "▁▁x"}), (Strings{"Hello", " world", "  x", ""}));
  EXPECT_EQ(steps(decoder(kLlama), {"▁", "▁a"}), (Strings{"", " a", ""}));
  EXPECT_EQ(steps(decoder(kLlama), {"<s>", "▁a"}), (Strings{"<s>", " a", ""}));
  EXPECT_EQ(steps(decoder(kLlama), {}), (Strings{""}));
}

TEST(TokenDecoder, ByteTokensComeOutAsWholeCharacters) {
  EXPECT_EQ(steps(decoder(kLlama), {"a", "<0xE6>", "<0x97>", "<0xA5>", "<0x41>", "b"}),
            (Strings{"a", "", "", "日", "A", "b", ""}));
  EXPECT_EQ(steps(decoder(kLlama), {"<0x20>", "x"}), (Strings{"", "x", ""})) << "a space is a space";
}

TEST(TokenDecoder, MalformedByteTokensBecomeOneReplacementEach) {
  EXPECT_EQ(joined(steps(decoder(kLlama), {"<0xE6>", "<0x97>", "b"})), "��b");
  EXPECT_EQ(joined(steps(decoder(kLlama), {"<0xE6>", "<0x97>"})), "��");
  EXPECT_EQ(joined(steps(decoder(kLlama), {"<0xF0>", "<0xE6>", "<0x97>", "<0xA5>"})), "�日");
  EXPECT_EQ(joined(steps(decoder(kLlama), {"<0xE6>", "<0x97>", "b"}, true)),
            "\xE6\x97"
            "b");
  EXPECT_EQ(joined(steps(decoder(kLlama), {"<0xG0>", "<0x1>"})), "<0xG0><0x1>") << "no byte tokens";
}

TEST(TokenDecoder, ByteLevelHoldsBackUnfinishedCharacters) {
  const TokenDecoder byte_level = decoder(R"({"type":"ByteLevel"})");
  const std::string smile = to_byte_alphabet("😀");  // four characters of two bytes each
  EXPECT_EQ(steps(byte_level, {"Hi", "Ġ" + smile.substr(0, 4), smile.substr(4), "!"}),
            (Strings{"Hi", " ", "😀", "!", ""}));
  EXPECT_EQ(steps(byte_level, {smile.substr(0, 6), "x"}), (Strings{"", "�x", ""}));
  EXPECT_EQ(steps(byte_level, {smile.substr(0, 6)}), (Strings{"", "�"}));
  EXPECT_EQ(joined(steps(byte_level, {smile.substr(0, 6), "x"}, true)), "\xF0\x9F\x98x");
  EXPECT_EQ(joined(steps(byte_level, {"a b", "▁"})), "a b▁") << "what is not in the alphabet is text";
}

TEST(TokenDecoder, MetaspaceDropsTheMarkersOfTheFirstToken) {
  EXPECT_EQ(joined(steps(decoder(R"({"type":"Metaspace"})"), {"▁a▁b", "▁c"})), "ab c");
  EXPECT_EQ(joined(steps(decoder(R"({"type":"Metaspace","prepend_scheme":"never"})"), {"▁a", "▁c"})), " a c");
}

TEST(TokenDecoder, ReplaceAndStripWorkAcrossTheTokensThatFuseJoins) {
  const TokenDecoder fused = decoder(R"({"type":"Sequence","decoders":[{"type":"Fuse"},
    {"type":"Replace","pattern":{"String":"abc"},"content":"X"},{"type":"Strip","content":"_","start":2,"stop":2}]})");
  EXPECT_EQ(steps(fused, {"_", "__a", "b", "c", "ab", "d_", "__"}),
            (Strings{"", "", "", "_X", "", "abd", "_", ""}));
  EXPECT_EQ(joined(steps(fused, {"ab", "_", "c_"})), "ab_c");
  const TokenDecoder apart = decoder(R"({"type":"Strip","content":"_","start":1,"stop":1})");
  EXPECT_EQ(steps(apart, {"_a_", "__b"}), (Strings{"a", "_b", ""}));
}

TEST(TokenDecoder, WithoutOneTokensAreJoinedBySpaces) {
  EXPECT_EQ(joined(steps(TokenDecoder(), {"a", "b", "c"})), "a b c");
}

TEST(TokenDecoder, AnyByteTokensStreamAsWholeCharactersAndWithoutLoss) {
  std::mt19937 random(3);
  const TokenDecoder llama = decoder(kLlama), byte_level = decoder(R"({"type":"ByteLevel"})");
  for (int round = 0; round < 2000; ++round) {
    Strings byte_tokens, spelled;
    std::string bytes;
    for (size_t n = random() % 12; n > 0; --n) {
      constexpr uint8_t kTelling[] = {0x41, 0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x20, 0xED};
      const uint8_t byte = random() % 4 == 0 ? static_cast<uint8_t>(random()) : kTelling[random() % 12];
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      byte_tokens.push_back(name);
      bytes.push_back(static_cast<char>(byte));
      spelled.push_back(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
    }
    for (const TokenDecoder* d : {&llama, &byte_level}) {
      const Strings parts = steps(*d, d == &llama ? byte_tokens : spelled);
      for (const std::string& part : parts) EXPECT_TRUE(is_valid_utf8(part));
      const std::string raw = joined(steps(*d, d == &llama ? byte_tokens : spelled, true));
      EXPECT_EQ(raw, d == &llama && bytes.starts_with(' ') ? bytes.substr(1) : bytes);
      if (is_valid_utf8(raw)) {
        EXPECT_EQ(joined(parts), raw);
      }
    }
  }
}

TEST(TokenDecoder, RefusesWhatItDoesNotKnowByName) {
  try {
    decoder(R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"CTC"}]})");
    FAIL();
  } catch (const FileError& error) {
    EXPECT_STREQ(error.what(), "test: decoder.decoders[1].type \"CTC\" is not supported");
  }
}

}  // namespace
}  // namespace trireme
