// Ids and places against those of another implementation (tests/fixtures/make_tokenizer_reference.py).
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"
#include "data/tokenizer_files.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

std::string strings(const boost::json::value& value) { return json_string(value, "cases", "text"); }

Encoding expected(const boost::json::value& rows) {
  Encoding e;
  for (const boost::json::value& row : rows.as_array()) {
    const auto at = [&](size_t i) { return static_cast<int32_t>(row.at(i).as_int64()); };
    e.ids.push_back(at(0));
    e.ranges.push_back({static_cast<uint32_t>(at(1)), static_cast<uint32_t>(at(2))});
    e.words.push_back(at(3));
    e.sequences.push_back(at(4));
    e.type_ids.push_back(at(5));
  }
  return e;
}

// Readable where a test fails.
std::string shown(const Encoding& e) {
  std::string out;
  for (size_t i = 0; i < e.size(); ++i)
    out += text("[", e.ids[i], " ", e.ranges[i].begin, "-", e.ranges[i].end, " w", e.words[i], " s",
                e.sequences[i], " t", e.type_ids[i], "] ");
  return out;
}

class TokenizerReference : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerReference, GivesTheSameIdsAndPlaces) {
  const auto folder = testing::fixture("tokenizers");
  const std::string name = GetParam();
  const Tokenizer original = load_tokenizer(folder / (name + ".json"));
  const testing::TempDir saved;
  save_tokenizer(original, saved.path());
  const Tokenizer again = load_tokenizer(saved.path() / "tokenizer.json");
  const boost::json::value cases = read_json_file(folder / (name + "-cases.json"));
  ASSERT_EQ(cases.at("single").as_array().size(), 84u);
  for (const Tokenizer* tokenizer : {&original, &again}) {
    for (const boost::json::value& c : cases.at("single").as_array()) {
      const std::string input = strings(c.at(0));
      const Encoding e = expected(c.at(1));
      EXPECT_EQ(shown(tokenizer->encode_with_offsets(input)), shown(e)) << input;
      EXPECT_EQ(tokenizer->encode(input), e.ids) << input;
    }
    for (const boost::json::value& c : cases.at("pair").as_array()) {
      const std::string first = strings(c.at(0).at(0)), second = strings(c.at(0).at(1));
      const Encoding e = expected(c.at(1));
      EXPECT_EQ(shown(tokenizer->encode_pair_with_offsets(first, second)), shown(e)) << first << "\n"
                                                                                     << second;
      const EncodedPair plain = tokenizer->encode_pair(first, second);
      EXPECT_EQ(plain.ids, e.ids);
      EXPECT_EQ(plain.type_ids, e.type_ids);
      const EncodeOptions bare{.add_special_tokens = false};
      EXPECT_EQ(tokenizer->with_template(tokenizer->encode_with_offsets(first, bare),
                                         tokenizer->encode_with_offsets(second, bare)),
                e);
    }
    for (const boost::json::value& c : cases.at("words").as_array()) {
      std::vector<std::string> words;
      for (const boost::json::value& word : c.at(0).as_array()) words.push_back(strings(word));
      EXPECT_EQ(shown(tokenizer->encode_words(words)), shown(expected(c.at(1)))) << words.front();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, TokenizerReference,
                         ::testing::Values("bert", "bert-cased", "roberta", "unigram"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(PublishedBert, GivesThePublishedIdsAndTheirPlaces) {
  const auto vocab = testing::sample_data("tok-bert/uncased_vocab.txt"),
             texts = testing::sample_data("tok-testvectors");
  TRIREME_SKIP_WITHOUT(vocab);
  TRIREME_SKIP_WITHOUT(texts);
  const Tokenizer bert = load_tokenizer(vocab);
  constexpr std::string_view kEnd = "\n__ggml_vocab_test__\n";
  const std::string inputs = read_text_file(texts / "bert-bge.inp", 1 << 20);
  std::istringstream ids(read_text_file(texts / "bert-bge.out", 1 << 20));
  const boost::json::value places = read_json_file(testing::fixture("tokenizers/bert-bge.json"));
  size_t number = 0;
  for (size_t at = 0, end; (end = inputs.find(kEnd, at)) != std::string::npos;
       at = end + kEnd.size(), ++number) {
    const std::string input = inputs.substr(at, end - at);
    const Encoding e = bert.encode_with_offsets(input);
    EXPECT_EQ(shown(e), shown(expected(places.at(number)))) << input;
    EXPECT_EQ(bert.encode(input), e.ids) << input;
    std::string line;
    std::getline(ids, line);
    std::istringstream numbers(line);
    std::vector<int32_t> published;
    for (int32_t id; numbers >> id;) published.push_back(id);
    EXPECT_EQ(bert.encode(input, {.add_special_tokens = false}), published) << input;
  }
  EXPECT_EQ(number, 46u);
}

}  // namespace
}  // namespace trireme
