#include "data/tokenizer_files.h"

#include <gtest/gtest.h>

#include <random>

#include "base/files.h"
#include "base/json.h"
#include "data/tokenizer_json.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using Ids = std::vector<int32_t>;

// A whole, small tokenizer.json in which a test replaces `from` by `to`.
std::string document(const std::string& from = "", const std::string& to = "") {
  std::string json = R"({"version":"1.0","truncation":null,"padding":null,
    "added_tokens":[{"id":0,"content":"<s>","special":true,"normalized":false},
                    {"id":7,"content":"<|x|>","special":false,"normalized":false,"single_word":false}],
    "normalizer":{"type":"Lowercase"},
    "pre_tokenizer":{"type":"WhitespaceSplit"},
    "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
      {"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},
      {"SpecialToken":{"id":"<s>","type_id":1}},{"Sequence":{"id":"B","type_id":1}}],
      "special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},
    "decoder":{"type":"Fuse"},
    "model":{"type":"BPE","unk_token":"?","vocab":{"<s>":0,"?":1,"a":2,"b":3,"c":4,"ab":5,"abc":6},
      "merges":["a b",["ab","c"]]}})";
  if (from.empty()) return json;
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

Tokenizer parse(const std::string& json) { return read_tokenizer_json(parse_json(json, "t.json"), "t.json"); }

std::string message(const std::string& json) {
  try {
    parse(json);
  } catch (const FileError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(TokenizerJson, EncodesThroughAllItsParts) {
  const Tokenizer tokenizer = parse(document());
  EXPECT_EQ(tokenizer.encode("ABC ab<|x|> dc"), (Ids{0, 6, 5, 7, 1, 4}));
  EXPECT_EQ(tokenizer.encode("ABC", {.add_special_tokens = false}), (Ids{6}));
  const EncodedPair pair = tokenizer.encode_pair("a", "bc");
  EXPECT_EQ(pair.ids, (Ids{2, 0, 3, 4}));
  EXPECT_EQ(pair.type_ids, (Ids{0, 1, 1, 1}));
  EXPECT_EQ(tokenizer.decode(Ids{0, 6, 7, 2}), "<s>abc<|x|>a");
  EXPECT_EQ(tokenizer.decode(Ids{0, 6, 7, 2}, {.skip_special_tokens = true}), "abc<|x|>a");
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  EXPECT_EQ(tokenizer.token_to_id("<|x|>"), 7);
  EXPECT_EQ(tokenizer.id_to_token(7), "<|x|>");
  EXPECT_EQ(tokenizer.id_to_token(8), std::nullopt);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.unk_id(), 1);
}

TEST(TokenizerJson, AddedTokensGoLongestFirstAndObeyTheirFlags) {
  const auto encode = [](const std::string& tokens, const std::string& text) {
    const std::string all = R"({"id":0,"content":"<s>","special":true,"normalized":false},)" + tokens;
    const std::string two = R"({"id":0,"content":"<s>","special":true,"normalized":false},
                    {"id":7,"content":"<|x|>","special":false,"normalized":false,"single_word":false})";
    return parse(document(two, all)).encode(text, {.add_special_tokens = false});
  };
  const auto token = [](int id, const std::string& content, const std::string& flags) {
    return R"({"id":)" + std::to_string(id) + R"(,"content":")" + content + "\",\"special\":true," + flags +
           "}";
  };
  const std::string raw = R"("normalized":false)";
  EXPECT_EQ(encode(token(7, "cat", raw) + "," + token(8, "catnap", raw), "catnapcatn"), (Ids{8, 7, 1}));
  EXPECT_EQ(encode(token(7, "CAT", raw), "cat CAT"), (Ids{4, 2, 1, 7})) << "before lowering case";
  EXPECT_EQ(encode(token(7, "CAT", R"("normalized":true)"), "Cat"), (Ids{7})) << "after lowering case";
  EXPECT_EQ(encode(token(7, "x", raw + R"(,"single_word":true)"), "x ax éx xb _x .x!"),
            (Ids{7, 2, 1, 1, 1, 1, 3, 1, 1, 1, 7, 1}));
  // Metaspace-like white space would show; here the strip flags keep it from making pieces of its own.
  EXPECT_EQ(encode(token(7, "x", raw + R"(,"lstrip":true,"rstrip":true)"), "a  x \t b"), (Ids{2, 7, 3}));
}

TEST(TokenizerJson, NamesTheFileAndTheReason) {
  const auto contains = [](const std::string& found, const std::string& wanted) {
    EXPECT_TRUE(found.starts_with("t.json: ")) << found;
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  const std::string whole = document();
  for (const size_t length : {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 1})
    contains(message(whole.substr(0, length)), "line");
  contains(message("[]"), "array");
  contains(message(document("\"c\":4", "\"c\":3")), "id 3 belongs to both \"b\" and \"c\"");
  contains(message(document("\"c\":4", "\"a\":4")), "duplicate");
  contains(message(document("\"c\":4", "\"c\":-4")),
           "token \"c\" has the id -4; ids of 7 tokens must lie in [0, ");
  contains(message(document("\"c\":4", "\"c\":999999999")), "has the id 999999999");
  contains(message(document("\"c\":4", "\"c\":4.0")), "vocab[\"c\"]");
  contains(message(document("\"c\":4", "\"\":4")), "id 4 has an empty token");
  contains(message(document("\"a b\"", "\"a d\"")), "merge 0, \"a\" and \"d\", names \"d\"");
  contains(message(document("\"a b\"", "\"a  b\"")), "merges[0]: \"a  b\" is no merge of two tokens");
  contains(message(document("[\"ab\",\"c\"]", "[\"ab\"]")), "merges[1] is an array of 1");
  contains(message(document("\"unk_token\":\"?\"", "\"unk_token\":\"!\"")),
           "unk_token \"!\" is not in the vocabulary");
  contains(message(document("\"unk_token\"", "\"end_of_word_suffix\":\"</w>\",\"unk_token\"")),
           "model.end_of_word_suffix is not supported");
  contains(message(document("\"unk_token\"", "\"dropout\":0.1,\"unk_token\"")), "dropout");
  contains(message(document("\"type\":\"BPE\"", "\"type\":\"Fancy\"")),
           "model.type \"Fancy\" is not supported");
  contains(message(document("Lowercase", "Uppercase")), "normalizer.type \"Uppercase\" is not supported");
  contains(message(document("\"id\":7,", "\"id\":6,")),
           "the id 6 belongs to the added token \"<|x|>\" and to \"abc\"");
  contains(message(document("\"id\":0,\"content\":\"<s>\"", "\"id\":9,\"content\":\"<s>\"")),
           "the added token \"<s>\" has the id 9, but 0 in the vocabulary");
  contains(message(document("\"content\":\"<|x|>\"", "\"content\":\"\"")),
           "the added token of id 7 is empty");
  contains(message(document("\"id\":7,", "\"id\":2000000000,")), "2000000000");
  contains(message(document("\"ids\":[0]", "\"ids\":[8]")), "ids");
  contains(message(document("{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\"", "],\"pair\"")), "");
  contains(message(document("\"id\":\"A\"", "\"id\":\"B\"")), "must hold the sequence A once");
  contains(message(document("TemplateProcessing", "Other")),
           "post_processor.type \"Other\" is not supported");
}

TEST(TokenizerJson, RefusesReplacementsThatTakeMemoryWithoutBound) {
  std::string doubled;
  for (int i = 0; i < 11; ++i)
    doubled += text(i ? "," : "", R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"})");
  const std::string normalizer =
      document("{\"type\":\"Lowercase\"}", "{\"type\":\"Sequence\",\"normalizers\":[" + doubled + "]}");
  EXPECT_EQ(message(normalizer),
            "t.json: normalizer.type is a replacement that can make a text more than 1024 times as long");
  const std::string decoder =
      document("{\"type\":\"Fuse\"}", "{\"type\":\"Sequence\",\"decoders\":[" + doubled + "]}");
  EXPECT_EQ(message(decoder),
            "t.json: decoder.decoders[10].content is a replacement that can make a text more than "
            "1024 times as long");
  const std::string prefix = "{\"type\":\"Prepend\",\"prepend\":\"" + std::string(65, 'x') + "\"}";
  EXPECT_EQ(message(document("{\"type\":\"Lowercase\"}", prefix)),
            "t.json: normalizer.prepend is longer than 64 bytes");
}

TEST(TokenizerJson, SurvivesRandomDamage) {
  const std::string whole = document();
  std::mt19937 random(8);
  int read = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = whole;
    for (size_t n = 1 + random() % 2; n > 0; --n)
      damaged[random() % damaged.size()] = static_cast<char>(random() % 128);
    try {
      const Tokenizer tokenizer = parse(damaged);
      tokenizer.decode(tokenizer.encode("ABC ab<|x|> dc<s>"));
      ++read;
    } catch (const FileError&) {
    }
  }
  EXPECT_GT(read, 100) << "some damage is harmless";
}

TEST(LoadTokenizer, ReadsRolesFromTheFilesBesideIt) {
  const testing::TempDir folder;
  write_file_atomically(folder.path() / "tokenizer.json", document());
  EXPECT_EQ(load_tokenizer(folder.path()).eos_id(), std::nullopt);
  write_file_atomically(folder.path() / "special_tokens_map.json",
                        R"({"bos_token":"ab","eos_token":{"content":"<|x|>","lstrip":false}})");
  write_file_atomically(folder.path() / "tokenizer_config.json",
                        R"({"bos_token":"<s>","pad_token":"missing"})");
  const Tokenizer tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer.bos_id(), 0) << "tokenizer_config.json counts more";
  EXPECT_EQ(tokenizer.eos_id(), 7);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_EQ(load_tokenizer(folder.path() / "tokenizer.json").eos_id(), std::nullopt) << "the file alone";
}

// The 256 bytes, then "ab" and special tokens.
void write_byte_level(const std::filesystem::path& folder, const std::string& config,
                      const std::vector<std::string>& more = {},
                      const std::string& merges = "#version: 0.2\na b\n") {
  boost::json::object vocab;
  for (int b = 33; b < 127; ++b) vocab[std::string(1, static_cast<char>(b))] = b - 33;
  vocab["Ġ"] = 94;
  vocab["ab"] = 95;
  for (const std::string& token : more) vocab[token] = vocab.size();
  write_file_atomically(folder / "vocab.json", to_json(vocab));
  write_file_atomically(folder / "merges.txt", merges);
  if (!config.empty()) write_file_atomically(folder / "tokenizer_config.json", config);
}

TEST(LoadTokenizer, TakesRobertaForWhatItsVocabularySays) {
  const testing::TempDir folder;
  write_byte_level(folder.path(), "", {"<s>", "<pad>", "</s>", "<unk>", "<mask>"});
  EXPECT_EQ(load_tokenizer(folder.path()).encode("ab c"), (Ids{96, 95, 94, 66, 98}));
  write_byte_level(folder.path(), R"({"tokenizer_class":"GPT2Tokenizer"})",
                   {"<s>", "<pad>", "</s>", "<unk>", "<mask>"});
  EXPECT_EQ(load_tokenizer(folder.path()).encode("ab c"), (Ids{95, 94, 66}));
}

TEST(LoadTokenizer, ReadsTheConfigurationOfByteLevelVocabularies) {
  const testing::TempDir folder;
  write_byte_level(folder.path(),
                   R"({"tokenizer_class":"GPT2Tokenizer","add_prefix_space":true,"eos_token":"<e>",
    "added_tokens_decoder":{"97":{"content":"<|im|>","special":true}}})",
                   {"<e>"});
  const Tokenizer tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer.encode("ab<e><|im|>"), (Ids{94, 95, 96, 97}));
  EXPECT_EQ(tokenizer.eos_id(), 96);
  EXPECT_TRUE(tokenizer.is_special(97));
}

TEST(LoadTokenizer, SplitsAsQwen2WhereTheClassSaysSo) {
  const testing::TempDir folder;
  write_byte_level(folder.path(), R"({"tokenizer_class":"Qwen2Tokenizer"})", {"12"},
                   "#version: 0.2\na b\n1 2\n");
  EXPECT_EQ(load_tokenizer(folder.path()).encode("12"), (Ids{16, 17})) << "single digits";
  write_byte_level(folder.path(), R"({"tokenizer_class":"GPT2Tokenizer"})", {"12"},
                   "#version: 0.2\na b\n1 2\n");
  EXPECT_EQ(load_tokenizer(folder.path()).encode("12"), (Ids{96}));
}

TEST(LoadTokenizer, NamesTheFileAndTheReason) {
  const testing::TempDir folder;
  const auto load_message = [&]() -> std::string {
    try {
      load_tokenizer(folder.path());
    } catch (const FileError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  const std::string root = folder.path().string();
  EXPECT_TRUE(load_message().starts_with(root + ": holds no tokenizer; looked for tokenizer.json, "))
      << load_message();
  write_byte_level(folder.path(), "", {}, "#version: 0.2\na b\na\n");
  EXPECT_EQ(load_message(),
            root + "/merges.txt: line 3: \"a\" is no merge of two tokens with one space between them");
  write_byte_level(folder.path(), "", {}, "a b\nb c\n");
  EXPECT_EQ(load_message(),
            root + "/merges.txt: merge 1, \"b\" and \"c\", names \"bc\", which is not in the vocabulary");
  write_byte_level(folder.path(), R"({"tokenizer_class":"CLIPTokenizer"})");
  EXPECT_NE(load_message().find("tokenizer_config.json: tokenizer_class \"CLIPTokenizer\""),
            std::string::npos);
  write_byte_level(folder.path(), R"({"tokenizer_class":"RobertaTokenizer"})");
  EXPECT_NE(load_message().find("\"</s>\" is not in the vocabulary"), std::string::npos) << load_message();
  write_byte_level(folder.path(), R"({"added_tokens_decoder":{"x1":{"content":"y"}}})");
  EXPECT_NE(load_message().find("added_tokens_decoder.x1 is no id"), std::string::npos) << load_message();
  write_file_atomically(folder.path() / "tokenizer.json", "{\"model\":");
  EXPECT_TRUE(load_message().starts_with(root + "/tokenizer.json: line 1")) << load_message();
}

}  // namespace
}  // namespace trireme
