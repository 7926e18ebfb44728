#include "data/sample_source.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

std::string error_of(const std::function<void()>& f) { return message_of<Error>(f); }

// Documents of the given lengths whose tokens count up from `first`.
std::filesystem::path write_tokens(const std::filesystem::path& path, const std::vector<int>& lengths, int first = 0,
                                   int64_t vocabulary = 100000, uint64_t tokenizer = 7) {
  TokenFileWriter writer(path, vocabulary, tokenizer);
  for (int length : lengths) {
    std::vector<int32_t> ids(length);
    std::iota(ids.begin(), ids.end(), first);
    first += length;
    writer.add_document(ids);
  }
  writer.finish();
  return path;
}

TEST(TokenFile, GivesBackWhatWasWritten) {
  TempDir dir;
  for (int64_t vocabulary : {70, 65536, 65537}) {
    const auto path = write_tokens(dir.path() / "a.trd", {5, 1, 13}, 40, vocabulary);
    const TokenFile f = TokenFile::open(path);
    EXPECT_EQ(f.num_tokens(), 19);
    EXPECT_EQ(f.num_documents(), 3);
    EXPECT_EQ(f.vocabulary(), vocabulary);
    EXPECT_EQ(f.tokenizer_hash(), 7u);
    for (int i = 0; i < 19; ++i) EXPECT_EQ(f.token(i), 40 + i);
    EXPECT_EQ(f.document_end(0), 5);
    EXPECT_EQ(f.document_end(4), 5);
    EXPECT_EQ(f.document_end(5), 6);
    EXPECT_EQ(f.document_end(6), 19);
    f.verify();
  }
}

TEST(TokenFile, EveryDamagedByteIsFoundOrHarmless) {
  TempDir dir;
  const auto path = write_tokens(dir.path() / "a.trd", {5, 1, 13}, 40, 70);
  std::ifstream in(path, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  const auto damaged = dir.path() / "b.trd";
  auto rejected = [&](const std::string& bytes) {
    std::ofstream(damaged, std::ios::binary) << bytes;
    return error_of([&] { TokenFile::open(damaged).verify(); }) != "no error";
  };
  EXPECT_FALSE(rejected(good));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x41);
    EXPECT_TRUE(rejected(bytes)) << "byte " << i;
    EXPECT_TRUE(rejected(good.substr(0, i))) << "cut to " << i;
  }
  EXPECT_TRUE(rejected(good + "x"));
}

TEST(TokenFile, RefusesIdsOutsideTheVocabularyAndLeavesNoPartialFile) {
  TempDir dir;
  {
    TokenFileWriter writer(dir.path() / "a.trd", 10, 0);
    const std::vector<int32_t> ids{3, 10};
    EXPECT_NE(error_of([&] { writer.add_document(ids); }).find("token id 10 is outside the vocabulary of 10"),
              std::string::npos);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Permutation, IsABijectionThatDependsOnItsKey) {
  for (uint64_t size : {1, 2, 3, 7, 64, 100, 1000}) {
    std::set<uint64_t> seen;
    int differs = 0;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t at = Permutation(size, 5)(i);
      EXPECT_LT(at, size);
      seen.insert(at);
      differs += at != Permutation(size, 6)(i);
    }
    EXPECT_EQ(seen.size(), size);
    if (size >= 64) {
      EXPECT_GT(differs, static_cast<int>(size) / 2);
    }
  }
}

TEST(SampleSource, UsesEverySampleOnceAnEpochAndReshuffles) {
  TempDir dir;
  const auto path = write_tokens(dir.path() / "a.trd", {30, 11, 62});
  const SampleSource source({{path}}, {.sequence_length = 4, .seed = 3});
  const int64_t n = source.samples_per_epoch();
  EXPECT_EQ(n, (103 - 1) / 4);
  std::vector<std::vector<int32_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::set<int32_t> firsts;
    orders.emplace_back();
    for (int64_t i = 0; i < n; ++i) {
      orders.back().push_back(source.sample(epoch * n + i).ids[0]);
      firsts.insert(orders.back().back());
    }
    EXPECT_EQ(static_cast<int64_t>(firsts.size()), n);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST(SampleSource, DocumentsDoNotSeeEachOther) {
  TempDir dir;
  const auto path = write_tokens(dir.path() / "a.trd", {3, 1, 10});
  SampleOptions options{.sequence_length = 6, .shuffle = false};
  const Sample s = SampleSource({{path}}, options).sample(0);
  EXPECT_EQ(s.ids, (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(s.labels, (std::vector<int32_t>{1, 2, -100, -100, 5, 6}));
  EXPECT_EQ(s.positions, (std::vector<int32_t>{0, 1, 2, 0, 0, 1}));
  EXPECT_EQ(s.segments, (std::vector<int32_t>{3, 1, 2}));
  options.packing = Packing::kStream;
  const Sample stream = SampleSource({{path}}, options).sample(1);
  EXPECT_EQ(stream.ids, (std::vector<int32_t>{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(stream.labels, (std::vector<int32_t>{7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(stream.positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(stream.segments, (std::vector<int32_t>{6}));
}

TEST(SampleSource, BlendsByWeightAndKeepsEachSourcesEpochs) {
  TempDir dir;
  const auto a = write_tokens(dir.path() / "a.trd", {401}, 0), b = write_tokens(dir.path() / "b.trd", {101}, 50000);
  const SampleSource source({{a, 3}, {b, 1}}, {.sequence_length = 4, .seed = 9});
  std::map<int32_t, int> counts;
  int from_b = 0;
  const int n = 4000;
  for (int i = 0; i < n; ++i) {
    const int32_t first = source.sample(i).ids[0];
    ++counts[first];
    from_b += first >= 50000;
  }
  EXPECT_NEAR(from_b / static_cast<double>(n), 0.25, 0.03);
  // Within a whole block every draw number occurs once, so each source's samples come round evenly.
  const Blend blend({3, 1}, 9);
  std::set<std::pair<int, int64_t>> draws;
  for (int64_t i = 0; i < 65536; ++i) {
    const Draw d = blend(i);
    draws.insert({d.source, d.number});
    EXPECT_LT(d.number, d.source == 0 ? 49152 : 16384);
  }
  EXPECT_EQ(draws.size(), 65536u);
}

TEST(SampleSource, NamesFilesThatDoNotFit) {
  TempDir dir;
  const auto a = write_tokens(dir.path() / "a.trd", {50}), b = write_tokens(dir.path() / "b.trd", {50}, 0, 99),
             c = write_tokens(dir.path() / "c.trd", {50}, 0, 100000, 8);
  EXPECT_NE(error_of([&] { SampleSource({{a}}, {.sequence_length = 50}); }).find("fewer than one sample"),
            std::string::npos);
  EXPECT_NE(error_of([&] { SampleSource({{a}, {b}}, {.sequence_length = 5}); }).find("vocabulary"), std::string::npos);
  EXPECT_NE(error_of([&] { SampleSource({{a}, {c}}, {.sequence_length = 5}); }).find("different tokenizers"),
            std::string::npos);
  EXPECT_NE(error_of([&] { SampleSource({{dir.path() / "none.trd"}}, {.sequence_length = 5}); }).find("none.trd"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme::testing
