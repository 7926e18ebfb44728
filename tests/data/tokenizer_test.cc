// Tokenizers as published, against published ids.
#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/files.h"
#include "base/json.h"
#include "base/utf8.h"
#include "data/tokenizer_files.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;

struct Case {
  std::string text;
  Ids ids;
};

// NAME.inp holds texts, each ended by a line of its own; NAME.out a line of ids a text.
std::vector<Case> read_cases(const std::string& name) {
  constexpr std::string_view kEnd = "\n__ggml_vocab_test__\n";
  const std::string texts = read_text_file(testing::sample_data("tok-testvectors/" + name + ".inp"), 1 << 20);
  std::istringstream lines(read_text_file(testing::sample_data("tok-testvectors/" + name + ".out"), 1 << 20));
  std::vector<Case> cases;
  for (size_t at = 0, end; (end = texts.find(kEnd, at)) != std::string::npos; at = end + kEnd.size()) {
    Case made{texts.substr(at, end - at), {}};
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) made.ids.push_back(id);
    cases.push_back(std::move(made));
  }
  return cases;
}

// Streams the ids, checking each part, and returns all of it.
std::string streamed(const Tokenizer& tokenizer, const Ids& ids, DecodeOptions options = {}) {
  TokenStream stream(tokenizer, options);
  std::string text;
  for (int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  const std::string rest = stream.finish();
  EXPECT_TRUE(is_valid_utf8(rest));
  return text + rest;
}

TEST(PublishedTokenizer, Gpt2GivesThePublishedIds) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-gpt2"));
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-testvectors"));
  const Tokenizer gpt2 = load_tokenizer(testing::sample_data("tok-gpt2"));
  const std::vector<Case> cases = read_cases("gpt-2");
  ASSERT_EQ(cases.size(), 46u);
  for (const Case& c : cases) {
    EXPECT_EQ(gpt2.encode(c.text), c.ids) << c.text;
    EXPECT_EQ(gpt2.decode(c.ids), c.text);
    EXPECT_EQ(streamed(gpt2, c.ids), c.text);
  }
  EXPECT_EQ(gpt2.vocab_size(), 50257);
  EXPECT_EQ(gpt2.eos_id(), 50256);
  EXPECT_EQ(gpt2.token_to_id("Ġthe"), 262);
  EXPECT_EQ(gpt2.id_to_token(262), "Ġthe");
  EXPECT_EQ(gpt2.encode("a<|endoftext|>b"), (Ids{64, 50256, 65}));
  EXPECT_EQ(gpt2.encode("a<|endoftext|>b", {.special_in_text = false}).size(), 9u);
}

TEST(PublishedTokenizer, LlamaGivesThePublishedIds) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-llama"));
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-testvectors"));
  const Tokenizer llama = load_tokenizer(testing::sample_data("tok-llama"));
  const std::vector<Case> cases = read_cases("llama-spm");
  ASSERT_EQ(cases.size(), 46u);
  for (const Case& c : cases) {
    EXPECT_EQ(llama.encode(c.text, {.add_special_tokens = false}), c.ids) << c.text;
    EXPECT_EQ(llama.decode(c.ids), c.text);
    EXPECT_EQ(streamed(llama, c.ids), c.text);
    Ids with_bos = c.ids;
    with_bos.insert(with_bos.begin(), 1);
    EXPECT_EQ(llama.encode(c.text), with_bos);
  }
  EXPECT_EQ(llama.vocab_size(), 32000);
  EXPECT_EQ(llama.special(),
            (SpecialIds{.bos = 1, .eos = 2, .unk = 0, .pad = {}, .cls = {}, .sep = {}, .mask = {}}));
}

TEST(PublishedTokenizer, RobertaPutsItsTokensAroundOneTextAndBetweenTwo) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-roberta"));
  const Tokenizer roberta = load_tokenizer(testing::sample_data("tok-roberta"));
  EXPECT_EQ(roberta.encode("Hello world"), (Ids{0, 31414, 232, 2}));
  EXPECT_EQ(roberta.encode("Hello <mask>!"), (Ids{0, 31414, 50264, 328, 2}))
      << "<mask> takes the space before it";
  const EncodedPair pair = roberta.encode_pair("Hello world", "Hello");
  EXPECT_EQ(pair.ids, (Ids{0, 31414, 232, 2, 2, 31414, 2}));
  EXPECT_EQ(pair.type_ids, Ids(7, 0));
  EXPECT_EQ(roberta.decode(pair.ids, {.skip_special_tokens = true}), "Hello worldHello");
  EXPECT_EQ(roberta.pad_id(), 1);
  EXPECT_EQ(roberta.special().mask, 50264);
}

TEST(PublishedTokenizer, StoriesGivesTheTextItsModelWrote) {
  const auto folder = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  const Tokenizer stories = load_tokenizer(folder);
  const std::string text = read_text_file(folder / "expected_greedy.txt", 1 << 20);
  const boost::json::value expected = read_json_file(folder / "expected_greedy.json");
  Ids ids;
  for (const auto& id : expected.at("greedy_ids").as_array())
    ids.push_back(static_cast<int32_t>(id.as_int64()));
  EXPECT_EQ(stories.decode(ids), text);
  EXPECT_EQ(streamed(stories, ids), text);
  Ids with_bos = ids;
  with_bos.insert(with_bos.begin(), 1);
  EXPECT_EQ(stories.encode(text), with_bos);
  EXPECT_EQ(stories.decode(with_bos), "<s> " + text);
  EXPECT_EQ(streamed(stories, with_bos, {.skip_special_tokens = true}), text);
  EXPECT_EQ(stories.bos_id(), 1);
  EXPECT_EQ(stories.eos_id(), 2);
}

TEST(PublishedTokenizer, RandomIdsStreamToWhatTheyDecodeTo) {
  for (const char* name : {"tok-gpt2", "tok-llama", "stories260K-hf"}) {
    TRIREME_SKIP_WITHOUT(testing::sample_data(name));
    const Tokenizer tokenizer = load_tokenizer(testing::sample_data(name));
    std::mt19937 random(11);
    for (int round = 0; round < 300; ++round) {
      Ids ids(random() % 20);
      // The first ids hold the byte tokens; some lie beyond the vocabulary.
      for (int32_t& id : ids)
        id = static_cast<int32_t>(random() %
                                  static_cast<uint32_t>(random() % 2 ? 260 : tokenizer.vocab_size() + 5));
      EXPECT_EQ(streamed(tokenizer, ids), tokenizer.decode(ids));
    }
    EXPECT_EQ(tokenizer.decode(Ids{-1, tokenizer.vocab_size(), 1 << 30}), "");
  }
}

TEST(PublishedTokenizer, ByteLevelGivesAnyBytesBack) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-gpt2"));
  const Tokenizer gpt2 = load_tokenizer(testing::sample_data("tok-gpt2"));
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    std::string bytes(random() % 80, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % (round % 2 ? 256 : 64));
    EXPECT_EQ(gpt2.decode(gpt2.encode(bytes), {.keep_malformed = true}), bytes);
  }
  EXPECT_EQ(gpt2.decode(gpt2.encode("a\xF0\x9F\x98 b\xC0")), "a� b�");
}

TEST(PublishedTokenizer, OthersReplaceWhatIsNotUtf8) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("stories260K-hf"));
  const Tokenizer stories = load_tokenizer(testing::sample_data("stories260K-hf"));
  EXPECT_EQ(stories.encode("a\xF0\x9F\x98 b"), stories.encode("a� b"));
  EXPECT_EQ(stories.decode(stories.encode("a\xF0\x9F\x98 b"), {.skip_special_tokens = true}), "a� b");
}

TEST(PublishedTokenizer, HostileTextsTakeLinearTimeOrNearly) {
  for (const char* name : {"tok-gpt2", "tok-llama"}) {
    TRIREME_SKIP_WITHOUT(testing::sample_data(name));
    const Tokenizer tokenizer = load_tokenizer(testing::sample_data(name));
    // Quadratic work on any of these would take many minutes.
    for (const std::string unit : {"a", " ", "'", "<", "\n ", "<|endoftext", "ab"}) {
      std::string text;
      while (text.size() < 1000000) text += unit;
      const Ids ids = tokenizer.encode(text, {.add_special_tokens = false});
      EXPECT_EQ(tokenizer.decode(ids), text) << unit;
    }
  }
}

// Every published tokenizer, written and read again, is the same tokenizer.
TEST(SavedTokenizer, GivesTheSameIds) {
  TRIREME_SKIP_WITHOUT(testing::sample_data("tok-testvectors"));
  std::vector<std::string> texts;
  for (const Case& c : read_cases("gpt-2")) texts.push_back(c.text);
  texts.push_back("a <mask> b</s><s>  <|endoftext|>\n");
  for (const char* name : {"tok-gpt2", "tok-roberta", "tok-llama", "stories260K-hf"}) {
    TRIREME_SKIP_WITHOUT(testing::sample_data(name));
    const Tokenizer original = load_tokenizer(testing::sample_data(name));
    const testing::TempDir folder;
    save_tokenizer(original, folder.path() / "saved");
    const Tokenizer again = load_tokenizer(folder.path() / "saved");
    EXPECT_EQ(again.special(), original.special()) << name;
    EXPECT_EQ(again.vocab_size(), original.vocab_size());
    for (const std::string& text : texts) {
      const Ids ids = original.encode(text);
      EXPECT_EQ(again.encode(text), ids) << name << ": " << text;
      EXPECT_EQ(again.decode(ids), original.decode(ids));
      EXPECT_EQ(again.encode_pair(text, "x").ids, original.encode_pair(text, "x").ids);
    }
    const std::string first = read_text_file(folder.path() / "saved/tokenizer.json", 1 << 24);
    save_tokenizer(again, folder.path() / "saved");
    EXPECT_EQ(read_text_file(folder.path() / "saved/tokenizer.json", 1 << 24), first);
  }
}

}  // namespace
}  // namespace trireme
