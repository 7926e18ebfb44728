// Sampling against its definition in doubles: which tokens may come, how often, and what is refused.
#include "inference/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace trireme {
namespace {

std::vector<float> random_logits(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(n);
  for (float& l : logits) l = normal(random);
  return logits;
}

// The probability of each token, from the definitions: penalty, temperature, softmax, top-k, top-p, min-p.
std::vector<double> reference(const std::vector<float>& raw, const std::vector<int32_t>& history,
                              const SamplingOptions& o) {
  std::vector<double> logits(raw.begin(), raw.end());
  for (int32_t id : std::set<int32_t>(history.begin(), history.end()))
    logits[id] = logits[id] > 0 ? logits[id] / o.repetition_penalty : logits[id] * o.repetition_penalty;
  std::vector<double> p(logits.size());
  auto normalize = [&] {
    double sum = 0;
    for (double x : p) sum += x;
    for (double& x : p) x /= sum;
  };
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp(logits[i] / o.temperature);
  normalize();
  std::vector<size_t> order(p.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  if (o.top_k > 0)
    for (size_t i = o.top_k; i < order.size(); ++i) p[order[i]] = 0;
  normalize();
  double before = 0;  // probability of the likelier ones
  for (size_t i : order) {
    const double mine = p[i];
    if (before >= o.top_p) p[i] = 0;
    before += mine;
  }
  for (size_t i : order)
    if (p[i] < o.min_p * p[order[0]]) p[i] = 0;
  normalize();
  return p;
}

struct Case {
  const char* name;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1, min_p = 0, repetition_penalty = 1;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Sampling : public ::testing::TestWithParam<Case> {};

// Pearson's chi-square over tokens expected at least 5 times, the others together; beyond 5 standard
// deviations fails.
TEST_P(Sampling, FollowsTheDistributionOfTheDefinition) {
  const Case& c = GetParam();
  SamplingOptions o;
  o.temperature = c.temperature;
  o.top_k = c.top_k;
  o.top_p = c.top_p;
  o.min_p = c.min_p;
  o.repetition_penalty = c.repetition_penalty;
  o.validate();
  constexpr int kDraws = 20000;
  for (unsigned seed : {1u, 2u}) {
    const std::vector<float> logits = random_logits(67, seed);
    std::vector<int32_t> history;
    for (int32_t i = 0; i < 67; i += 2)
      history.insert(history.end(), {i, i});  // penalised once, however often seen
    o.seed = seed;
    const std::vector<double> p = reference(logits, history, o);
    std::vector<int> count(p.size());
    for (int draw = 0; draw < kDraws; ++draw) {
      // Half of the draws differ in the sequence, half in the position.
      std::vector<int32_t> longer = history;
      if (draw % 2) longer.resize(history.size() + static_cast<size_t>(draw / 2 % 100), history.back());
      const auto id = sample_token(logits, longer, o, draw % 2 ? draw / 200 : draw + kDraws);
      ASSERT_TRUE(id.has_value());
      ASSERT_GT(p.at(*id), 0) << "token " << *id << " should have been cut";
      ++count[*id];
    }
    double chi_square = 0, rest = 0;
    int freedom = -1, rest_count = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = p[i] * kDraws;
      if (expected >= 5) {
        chi_square += (count[i] - expected) * (count[i] - expected) / expected;
        ++freedom;
      } else {
        rest += expected;
        rest_count += count[i];
      }
    }
    if (rest > 0.1) {
      chi_square += (rest_count - rest) * (rest_count - rest) / rest;
      ++freedom;
    }
    EXPECT_LE(chi_square, freedom + 5 * std::sqrt(2.0 * freedom) + 5)
        << "with " << freedom << " degrees of freedom";
    EXPECT_GE(freedom, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Sampling,
                         ::testing::Values(Case{"plain"}, Case{"cold", 0.5}, Case{"hot", 3},
                                           Case{"top_k", 1, 7}, Case{"top_k_above_the_vocabulary", 1, 1000},
                                           Case{"top_p", 1, 0, 0.8}, Case{"top_p_hot", 2, 0, 0.6},
                                           Case{"min_p", 1, 0, 1, 0.1}, Case{"penalty", 1, 0, 1, 0, 1.7},
                                           Case{"reward", 1, 0, 1, 0, 0.6}, Case{"top_k_and_p", 1.3, 12, 0.7},
                                           Case{"everything", 1.5, 20, 0.9, 0.05, 1.3}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(SampleToken, TopPKeepsTheSmallestSetThatReachesIt) {
  // 0.5, 0.25, 0.15, 0.1 in another order.
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f), std::log(0.25f)};
  for (auto [top_p, want] :
       {std::pair(0.01, std::set<int32_t>{1}), std::pair(0.49, std::set<int32_t>{1}),
        std::pair(0.51, std::set<int32_t>{1, 3}), std::pair(0.74, std::set<int32_t>{1, 3}),
        std::pair(0.76, std::set<int32_t>{1, 2, 3}), std::pair(0.91, std::set<int32_t>{0, 1, 2, 3})}) {
    SamplingOptions o;
    o.top_p = top_p;
    std::set<int32_t> seen;
    for (int64_t sequence = 0; sequence < 300; ++sequence)
      seen.insert(*sample_token(logits, {}, o, sequence));
    EXPECT_EQ(seen, want) << top_p;
  }
}

TEST(SampleToken, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  SamplingOptions o;
  o.temperature = 0;
  const std::vector<float> logits = {-1, 3, 2, 3, 0.5f};
  EXPECT_EQ(sample_token(logits, {}, o, 0), 1);
  o.repetition_penalty = 2;  // 3 becomes 1.5
  const std::vector<int32_t> one = {1}, both = {1, 3, 1};
  EXPECT_EQ(sample_token(logits, one, o, 0), 3);
  EXPECT_EQ(sample_token(logits, both, o, 0), 2);
  const std::vector<float> negative = {-2, -1.5f};  // -1.5 becomes -3
  EXPECT_EQ(sample_token(negative, one, o, 0), 0);
}

TEST(SampleToken, IsAFunctionOfSeedSequenceAndPosition) {
  const std::vector<float> logits = random_logits(67, 3);
  SamplingOptions o, other;
  other.seed = 1;
  const std::vector<int32_t> history = {5}, longer = {5, 5};
  int seeds = 0, sequences = 0, positions = 0;
  for (int64_t s = 0; s < 100; ++s) {
    const auto id = sample_token(logits, history, o, s);
    EXPECT_EQ(sample_token(logits, history, o, s), id);
    seeds += sample_token(logits, history, other, s) != id;
    sequences += sample_token(logits, history, o, s + 1) != id;
    positions += sample_token(logits, longer, o, s) != id;
  }
  for (int differ : {seeds, sequences, positions}) EXPECT_GT(differ, 50);
}

TEST(SampleToken, NeedsALargestFiniteLogit) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInf = std::numeric_limits<float>::infinity();
  for (double temperature : {0.0, 1.0}) {
    SamplingOptions o;
    o.temperature = temperature;
    EXPECT_EQ(sample_token(std::vector<float>{kNan, kNan}, {}, o, 0), std::nullopt);
    EXPECT_EQ(sample_token(std::vector<float>{-kInf, -kInf}, {}, o, 0), std::nullopt);
    EXPECT_EQ(sample_token(std::vector<float>{0, kInf}, {}, o, 0), std::nullopt);
    EXPECT_EQ(sample_token(std::vector<float>{}, {}, o, 0), std::nullopt);
    EXPECT_EQ(sample_token(std::vector<float>{kNan, -kInf, -3, kNan}, {}, o, 0), 2);
  }
}

TEST(SamplingOptions, EachOutOfRangeIsNamedWithItsRange) {
  auto message = [](auto change) {
    SamplingOptions o;
    change(o);
    try {
      o.validate();
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  using O = SamplingOptions;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(),
                   kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(message([](O& o) { o.temperature = -0.5; }), "temperature=-0.5 is out of range; use 0 to 100");
  EXPECT_EQ(message([=](O& o) { o.temperature = kInf; }), "temperature=inf is out of range; use 0 to 100");
  EXPECT_EQ(message([](O& o) { o.top_k = -1; }), "top_k=-1 is out of range; use 0 (all) or more");
  EXPECT_EQ(message([](O& o) { o.top_p = 0; }), "top_p=0 is out of range; use a number above 0, at most 1");
  EXPECT_EQ(message([](O& o) { o.top_p = 1.5; }),
            "top_p=1.5 is out of range; use a number above 0, at most 1");
  EXPECT_EQ(message([](O& o) { o.min_p = 2; }), "min_p=2 is out of range; use 0 to 1");
  EXPECT_EQ(message([](O& o) { o.repetition_penalty = 0; }),
            "repetition_penalty=0 is out of range; use a number above 0, at most 100");
  EXPECT_EQ(message([](O& o) { o.max_tokens = 0; }), "max_tokens=0 is out of range; use 1 or more");
  EXPECT_EQ(message([](O& o) { o.stop.assign(65, "x"); }), "stop has 65 strings; at most 64 are supported");
  EXPECT_EQ(message([](O& o) { o.stop = {""}; }), "stop strings have 1 to 1024 bytes, one has 0");
  EXPECT_EQ(message([](O& o) { o.stop = {std::string(1025, 'x')}; }),
            "stop strings have 1 to 1024 bytes, one has 1025");
  for (auto field : {&O::temperature, &O::top_p, &O::min_p, &O::repetition_penalty})
    EXPECT_NE(message([=](O& o) { o.*field = kNan; }), "accepted");
  EXPECT_EQ(message([](O& o) { o.temperature = 0, o.top_k = 5, o.min_p = 1, o.max_tokens = 1; }), "accepted");
}

}  // namespace
}  // namespace trireme
