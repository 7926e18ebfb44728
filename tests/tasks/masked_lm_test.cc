// Which tokens a masked language model is to predict, and what becomes of them.
#include "tasks/masked_lm.h"

#include <gtest/gtest.h>

#include <set>

#include "data/bpe_trainer.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

class MaskedLm : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += i % 3 ? "the quick brown foxes " : "jumped over lazy sleeping dogs ";
    const std::string_view views[] = {text};
    tokenizer_ = std::make_unique<Tokenizer>(
        train_bpe(views, {.vocab_size = 280, .add_prefix_space = true, .roberta = true}));
    TokenFileWriter writer(path(), tokenizer_->vocab_size(), 0);
    for (int d = 0; d < 40; ++d) {
      const std::vector<int32_t> ids =
          tokenizer_->encode(text.substr(static_cast<size_t>(d) * 37, 300 + static_cast<size_t>(d)),
                             {.add_special_tokens = false});
      tokens_ += static_cast<int64_t>(ids.size());
      writer.add_document(ids);
    }
    writer.finish();
  }
  std::filesystem::path path() const { return dir_.path() / "t.tokens"; }
  MaskedLmBatches batches(MaskedLmOptions objective, int64_t length = 48, bool shuffle = true) const {
    return MaskedLmBatches({{path(), 1}}, *tokenizer_, {objective, length, shuffle, 7, 1});
  }
  static std::vector<int64_t> numbers(int64_t first, int64_t count) {
    std::vector<int64_t> n;
    for (int64_t i = 0; i < count; ++i) n.push_back(first + i);
    return n;
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  int64_t tokens_ = 0;
};

template <class T>
std::vector<T> values(const Tensor& t) {
  return {t.data<T>(), t.data<T>() + t.numel()};
}

TEST_F(MaskedLm, MasksAreAFunctionOfTheSampleAndOthersInTheNextEpoch) {
  const MaskedLmBatches b = batches({}, 48, false);
  const int64_t n = b.samples_per_epoch();
  const TokenBatch once = b.batch(numbers(3, 4), 4), again = batches({}, 48, false).batch(numbers(3, 4), 4);
  EXPECT_EQ(values<int32_t>(once.ids), values<int32_t>(again.ids));
  EXPECT_EQ(values<int32_t>(once.labels), values<int32_t>(again.labels));
  // Alone it is masked as among others.
  const TokenBatch alone = b.batch({4}, 1);
  const int64_t begin = once.segments.starts.data<int32_t>()[1],
                end = once.segments.starts.data<int32_t>()[2];
  EXPECT_EQ(values<int32_t>(alone.ids), values<int32_t>(once.ids.rows(begin, end)));
  const TokenBatch later = b.batch(numbers(3 + n, 4), 4);
  EXPECT_EQ(later.ids.numel(), once.ids.numel());
  EXPECT_NE(values<int32_t>(later.labels), values<int32_t>(once.labels));
}

TEST_F(MaskedLm, EveryTokenIsSeenOnceAnEpochBetweenItsSpecialTokens) {
  const MaskedLmBatches b = batches({});
  const TokenBatch all =
      b.batch(numbers(0, b.samples_per_epoch()), static_cast<size_t>(b.samples_per_epoch()));
  const auto starts = values<int32_t>(all.segments.starts);
  EXPECT_EQ(all.tokens(), tokens_ + 2 * b.samples_per_epoch());
  EXPECT_LE(all.segments.longest, 48);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    EXPECT_EQ(all.ids.data<int32_t>()[starts[s]], *tokenizer_->special().cls);
    EXPECT_EQ(all.ids.data<int32_t>()[starts[s + 1] - 1], *tokenizer_->special().sep);
  }
}

TEST_F(MaskedLm, OfTheChosenEightTenthsAreMaskedOneIsRandomAndOneStays) {
  const MaskedLmBatches b = batches({.probability = 0.2});
  double tokens = 0, chosen = 0, masked = 0, same = 0;
  for (int64_t first = 0; first < 40 * b.samples_per_epoch(); first += 50) {
    const TokenBatch batch = b.batch(numbers(first, 50), 50);
    const auto ids = values<int32_t>(batch.ids), labels = values<int32_t>(batch.labels);
    for (size_t i = 0; i < ids.size(); ++i) {
      tokens += labels[i] != -100 || !tokenizer_->is_special(ids[i]);
      chosen += labels[i] != -100;
      masked += labels[i] != -100 && ids[i] == *tokenizer_->special().mask;
      same += labels[i] == ids[i];
      EXPECT_FALSE(labels[i] != -100 && tokenizer_->is_special(labels[i]));
    }
  }
  ASSERT_GT(chosen, 10000);
  EXPECT_NEAR(chosen / tokens, 0.2, 0.01);
  EXPECT_NEAR(masked / chosen, 0.8, 0.015);
  EXPECT_NEAR(same / chosen, 0.1, 0.012);
}

TEST_F(MaskedLm, WholeWordsGoTogetherAndSpansAreRunsOfThem) {
  for (const Masking masking : {Masking::kWholeWord, Masking::kSpan}) {
    const MaskedLmBatches b = batches({.masking = masking});
    double chosen = 0, tokens = 0, runs = 0;
    for (int64_t n = 0; n < b.samples_per_epoch(); ++n) {
      const TokenBatch batch = b.batch({n}, 1);
      const auto ids = values<int32_t>(batch.ids), labels = values<int32_t>(batch.labels);
      const auto original = [&](size_t i) { return labels[i] == -100 ? ids[i] : labels[i]; };
      for (size_t i = 1; i + 1 < ids.size(); ++i) {
        ++tokens;
        chosen += labels[i] != -100;
        runs += labels[i] != -100 && labels[i - 1] == -100;
        // A token that goes on a word shares its fate.
        if (i > 1 && !tokenizer_->id_to_token(original(i))->starts_with("Ġ")) {
          EXPECT_EQ(labels[i] == -100, labels[i - 1] == -100) << n << ' ' << i;
        }
      }
    }
    EXPECT_GT(chosen / tokens, 0.14);
    EXPECT_LT(chosen / tokens, 0.25);  // the last word may go past what was wanted
    EXPECT_GT(chosen / runs, masking == Masking::kSpan ? 2.5 : 1.0);
  }
}

TEST_F(MaskedLm, HalfOfTheSecondPartsComeFromAnotherDocument) {
  const MaskedLmBatches b = batches({.next_sentence = true});
  double random = 0, all = 0;
  for (int64_t n = 0; n < 20 * b.samples_per_epoch(); ++n) {
    const TokenBatch batch = b.batch({n}, 1);
    const auto types = values<int32_t>(batch.types);
    EXPECT_TRUE(std::is_sorted(types.begin(), types.end()));
    EXPECT_EQ(types.front(), 0);
    EXPECT_EQ(types.back(), 1);
    random += batch.sequence_labels.data<int32_t>()[0];
    ++all;
  }
  EXPECT_NEAR(random / all, 0.5, 0.05);
}

TEST_F(MaskedLm, RowsAreFilledUpAndWhatDoesNotCountHasNoLabel) {
  const MaskedLmBatches b({{path(), 1}}, *tokenizer_, {{.next_sentence = true}, 48, true, 7, 4});
  const TokenBatch batch = b.batch(numbers(0, 3), 2);
  EXPECT_EQ(batch.tokens() % 4, 0);
  EXPECT_EQ(batch.sequence_labels.numel(), batch.segments.count());
  const TokenBatch none = b.batch({5}, 0);
  EXPECT_EQ(loss_weight(none), 0);
  EXPECT_GT(none.tokens(), 0);
}

TEST_F(MaskedLm, ATokenizerWithoutAMaskIsRefused) {
  const std::string text = "some words";
  const std::string_view views[] = {text};
  const Tokenizer plain = train_bpe(views, {.vocab_size = 280});
  try {
    MaskedLmBatches({{path(), 1}}, plain, {});
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(
        e.what(),
        "tokenizer.path: the tokenizer has no cls token, which masked language modelling needs; use one of a "
        "BERT-like model");
  }
}

}  // namespace
}  // namespace trireme::testing
