#include "data/prepare.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/bpe_trainer.h"
#include "data/token_file.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest()
      : tokenizer_(train_bpe(std::vector<std::string_view>{"the cat sat on the mat, the cat sat"},
                             {.vocab_size = 270})) {}

  std::filesystem::path write(const char* name, const std::string& text) {
    std::ofstream(dir_.path() / name, std::ios::binary) << text;
    return dir_.path() / name;
  }
  // The documents of a token file as text, without their end tokens.
  std::vector<std::string> documents(const std::filesystem::path& path) {
    const TokenFile f = TokenFile::open(path);
    std::vector<std::string> texts;
    for (int64_t begin = 0; begin < f.num_tokens();) {
      const int64_t end = f.document_end(begin);
      std::vector<int32_t> ids(end - begin);
      f.copy_tokens(begin, ids);
      EXPECT_EQ(ids.back(), tokenizer_.eos_id());
      ids.pop_back();
      texts.push_back(tokenizer_.decode(ids));
      begin = end;
    }
    return texts;
  }

  TempDir dir_;
  Tokenizer tokenizer_;
};

TEST_F(PrepareTest, CutsDocumentsAsAsked) {
  const auto input = write("a.txt", "the cat\nsat\n\n\non the mat\n");
  PrepareOptions options;
  options.out = dir_.path() / "out";
  prepare(tokenizer_, {input}, options);
  EXPECT_EQ(documents(options.out), (std::vector<std::string>{"the cat\nsat\n\n\non the mat\n"}));
  options.split = DocumentSplit::kBlankLines;
  const Prepared p = prepare(tokenizer_, {input}, options);
  EXPECT_EQ(documents(options.out), (std::vector<std::string>{"the cat\nsat\n", "on the mat\n"}));
  EXPECT_EQ(p.documents, 2);
  options.split = DocumentSplit::kLines;
  prepare(tokenizer_, {input}, options);
  EXPECT_EQ(documents(options.out), (std::vector<std::string>{"the cat", "sat", "on the mat"}));
}

TEST_F(PrepareTest, ReadsJsonLinesAndNamesABadOne) {
  PrepareOptions options;
  options.out = dir_.path() / "out";
  options.split = DocumentSplit::kJsonl;
  options.jsonl_key = "body";
  prepare(tokenizer_, {write("a.jsonl", "{\"body\": \"the\\ncat\"}\n\n{\"x\": 1, \"body\": \"sat\"}")}, options);
  EXPECT_EQ(documents(options.out), (std::vector<std::string>{"the\ncat", "sat"}));
  for (const char* bad : {"{\"body\": \"a\"}\n{\"text\": \"b\"}\n", "{\"body\": \"a\"}\n{\"body\": 3}\n", "{}\n{"}) {
    const auto input = write("bad.jsonl", bad);
    try {
      prepare(tokenizer_, {input}, options);
      FAIL() << bad;
    } catch (const FileError& e) {
      EXPECT_NE(std::string(e.what()).find("bad.jsonl:"), std::string::npos) << e.what();
    }
  }
  EXPECT_EQ(documents(options.out).size(), 2u) << "a failed preparation left the earlier file as it was";
}

TEST_F(PrepareTest, HoldsBackAnEvenShareOfDocuments) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "cat " + std::to_string(i) + "\n";
  PrepareOptions options;
  options.out = dir_.path() / "train";
  options.validation_out = dir_.path() / "validation";
  options.validation_fraction = 0.1;
  options.split = DocumentSplit::kLines;
  const Prepared p = prepare(tokenizer_, {write("a.txt", text)}, options);
  EXPECT_EQ(p.documents, 90);
  EXPECT_EQ(p.validation_documents, 10);
  EXPECT_EQ(documents(options.validation_out)[0], "cat 9");
  EXPECT_EQ(documents(options.out)[9], "cat 10");
}

TEST_F(PrepareTest, RefusesInputWithoutDocuments) {
  PrepareOptions options;
  options.out = dir_.path() / "out";
  EXPECT_THROW(prepare(tokenizer_, {write("empty.txt", "")}, options), FileError);
  EXPECT_THROW(prepare(tokenizer_, {dir_.path() / "missing.txt"}, options), FileError);
  EXPECT_FALSE(std::filesystem::exists(options.out));
}

}  // namespace
}  // namespace trireme::testing
