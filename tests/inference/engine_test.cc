// Generation: the text of a real model, the same at every layout and in every batch, and equal to whole
// forward passes without a cache.
#include "inference/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <random>

#include "base/json.h"
#include "comm/threads.h"
#include "model/load_weights.h"
#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

using Prompts = std::vector<std::vector<int32_t>>;

struct Layout {
  int tp = 1, pp = 1;
};

// Runs fn(model, world) on every rank with the weights of `folder`.
template <class Fn>
void with_model(const std::filesystem::path& folder, Layout layout, const Fn& fn,
                const std::function<void(ModelConfig&)>& change = {}) {
  run_ranks(layout.tp * layout.pp,
            [&](Communicator& world) {
              MeshShape shape;
              shape.tp = layout.tp;
              shape.pp = layout.pp;
              Mesh mesh(world, shape);
              ModelConfig config = ModelConfig::from_directory(folder);
              if (change) change(config);
              ShardedModel model(config, mesh, {});
              allocate_values(model.parameters(), DType::kF32, Device::cpu());
              load_weights(model, WeightSource::open(folder));
              fn(model, world);
            },
            {.timeout_s = 60});
}

std::vector<std::vector<int32_t>> outputs_of(const std::vector<Generation>& results) {
  std::vector<std::vector<int32_t>> outputs;
  for (const Generation& g : results) outputs.push_back(g.output);
  return outputs;
}

// What rank 0 gets; every rank must get the same.
std::vector<Generation> generate(const std::filesystem::path& folder, Layout layout, const Prompts& prompts,
                                 const SamplingOptions& sampling, const EngineOptions& options = {},
                                 const std::function<void(ModelConfig&)>& change = {}) {
  std::vector<std::vector<Generation>> by_rank(static_cast<size_t>(layout.tp * layout.pp));
  with_model(
      folder, layout,
      [&](const ShardedModel& model, Communicator& world) {
        Engine engine(model, options);
        by_rank[world.rank()] = engine.generate(prompts, sampling);
      },
      change);
  for (const auto& other : by_rank) {
    EXPECT_EQ(outputs_of(other), outputs_of(by_rank[0]));
    for (size_t i = 0; i < other.size(); ++i) EXPECT_EQ(other[i].reason, by_rank[0][i].reason);
  }
  return by_rank[0];
}

SamplingOptions greedy(int64_t max_tokens) {
  SamplingOptions o;
  o.temperature = 0;
  o.max_tokens = max_tokens;
  o.ignore_eos = true;
  return o;
}

Prompts random_prompts(const std::vector<size_t>& lengths, int32_t vocabulary) {
  std::mt19937 random(5);
  Prompts prompts;
  for (size_t n : lengths) {
    prompts.emplace_back();
    for (size_t i = 0; i < n; ++i)
      prompts.back().push_back(static_cast<int32_t>(random() % static_cast<unsigned>(vocabulary)));
  }
  return prompts;
}

std::vector<int32_t> ids_of(const boost::json::value& array) {
  std::vector<int32_t> ids;
  for (const auto& v : array.as_array()) ids.push_back(static_cast<int32_t>(v.as_int64()));
  return ids;
}

class RealModel : public ::testing::TestWithParam<Layout> {};

TEST_P(RealModel, GeneratesExactlyItsGreedyTokens) {
  const auto folder = sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  const auto expected = read_json_file(folder / "expected_greedy.json");
  const std::vector<int32_t> prompt = ids_of(expected.at("prompt_ids")),
                             want = ids_of(expected.at("greedy_ids"));
  ASSERT_GT(want.size(), 100u);
  SamplingOptions options;
  options.temperature = 0;
  options.max_tokens = static_cast<int64_t>(want.size());
  EXPECT_EQ(outputs_of(generate(folder, GetParam(), {prompt}, options)), Prompts{want});
}

TEST_P(RealModel, SamplesTheSameTextAtEveryLayout) {
  const auto folder = sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  SamplingOptions options;
  options.temperature = 1.1;
  options.top_p = 0.95;
  options.repetition_penalty = 1.05;
  options.seed = 17;
  options.max_tokens = 60;
  const Prompts prompts = {{1}, {1, 403, 407, 261, 378}, {1}};
  const auto alone = outputs_of(generate(folder, {}, prompts, options));
  EXPECT_NE(alone[0], alone[2]);  // copies of a prompt draw their own numbers
  const Prompts others = {{1, 403}, {1, 403, 407, 261, 378}, {1}, {1, 261}, {1}};
  const auto among = outputs_of(generate(folder, {}, others, options));
  EXPECT_EQ((Prompts{among[2], among[1], among[4]}), alone);  // whatever else is in the batch
  EXPECT_EQ(outputs_of(generate(folder, GetParam(), prompts, options)), alone);
  options.seed = 18;
  EXPECT_NE(outputs_of(generate(folder, GetParam(), prompts, options)), alone);
}

INSTANTIATE_TEST_SUITE_P(Layouts, RealModel,
                         ::testing::Values(Layout{1, 1}, Layout{2, 1}, Layout{4, 1}, Layout{1, 2},
                                           Layout{1, 5}, Layout{2, 2}),
                         [](const auto& info) { return text("tp_", info.param.tp, "_pp_", info.param.pp); });

class SmallModel : public ::testing::TestWithParam<const char*> {};

TEST_P(SmallModel, CachedDecodingEqualsWholeForwards) {
  const auto folder = fixture(GetParam());
  const Prompts prompts = random_prompts({1, 9, 17}, 131);
  constexpr int64_t kTokens = 20;
  Prompts want;
  with_model(folder, {}, [&](const ShardedModel& model, Communicator&) {
    for (const auto& prompt : prompts) {
      std::vector<int32_t> tokens = prompt;
      for (int64_t i = 0; i < kTokens; ++i) {
        const int64_t n = static_cast<int64_t>(tokens.size());
        std::vector<int32_t> positions(tokens.size());
        for (size_t p = 0; p < positions.size(); ++p) positions[p] = static_cast<int32_t>(p);
        TokenBatch batch;
        batch.ids = tensor_of<int32_t>(tokens, {n});
        batch.positions = tensor_of<int32_t>(positions, {n});
        batch.segments.starts = tensor_of<int32_t>({0, static_cast<int32_t>(n)}, {2});
        const PassContext pass{batch, Recompute::kNone, false, 0, 1, nullptr, nullptr};
        const ModelChunk& chunk = *model.chunks()[0];
        const Tensor logits = chunk.logits(chunk.forward(Tensor(), pass, nullptr, {}, nullptr), {n - 1});
        const auto values = logits.span<float>();
        tokens.push_back(
            static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin()));
      }
      want.emplace_back(tokens.begin() + static_cast<ptrdiff_t>(prompt.size()), tokens.end());
    }
  });
  for (Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{1, 3}})
    EXPECT_EQ(outputs_of(generate(folder, layout, prompts, greedy(kTokens))), want)
        << "tp=" << layout.tp << " pp=" << layout.pp;
}

TEST_P(SmallModel, ABatchGivesWhatEachPromptGivesAlone) {
  const auto folder = fixture(GetParam());
  const Prompts prompts = random_prompts({3, 30, 1, 11, 16, 17, 2, 40}, 131);
  Prompts want;
  for (const auto& prompt : prompts) want.push_back(generate(folder, {}, {prompt}, greedy(15))[0].output);
  // All at once; prompts in pieces; few at a time; a cache that makes them wait; blocks of one token.
  for (const EngineOptions& options :
       {EngineOptions{}, EngineOptions{.max_step_tokens = 7}, EngineOptions{.max_sequences = 3},
        EngineOptions{.cache_tokens = 70, .block_size = 5}, EngineOptions{.block_size = 1},
        EngineOptions{.max_sequences = 5, .max_step_tokens = 1, .cache_tokens = 128, .block_size = 3}})
    EXPECT_EQ(outputs_of(generate(folder, {}, prompts, greedy(15), options)), want)
        << options.max_sequences << " " << options.max_step_tokens << " " << options.cache_tokens << " "
        << options.block_size;
}

INSTANTIATE_TEST_SUITE_P(Families, SmallModel,
                         ::testing::Values("gpt2-tiny", "llama-tiny", "llama-rope-tied"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Engine, EndsAtTheContextAndAtMaxTokens) {
  const Prompts prompts = random_prompts({60, 10}, 131);  // of a context of 64
  const auto results = generate(fixture("gpt2-tiny"), {}, prompts, greedy(9));
  EXPECT_EQ(results[0].output.size(), 4u);
  EXPECT_EQ(results[1].output.size(), 9u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(results[i].reason, FinishReason::kLength);
    EXPECT_EQ(results[i].prompt, prompts[i]);
  }
}

TEST(Engine, EndsBeforeAnEndTokenUnlessItIsIgnored) {
  const Prompts prompts = random_prompts({5}, 131);
  const std::vector<int32_t> free = generate(fixture("llama-tiny"), {}, prompts, greedy(12))[0].output;
  const int32_t end = free[6];
  const auto first = std::find(free.begin(), free.end(), end);
  auto ends_there = [&](ModelConfig& config) { config.eos_token_ids = {130, end}; };
  SamplingOptions options = greedy(12);
  EXPECT_EQ(generate(fixture("llama-tiny"), {}, prompts, options, {}, ends_there)[0].output, free);
  options.ignore_eos = false;
  const auto got = generate(fixture("llama-tiny"), {2, 1}, prompts, options, {}, ends_there)[0];
  EXPECT_EQ(got.output, std::vector<int32_t>(free.begin(), first));
  EXPECT_EQ(got.reason, FinishReason::kStop);
}

TEST(Engine, TheReaderOnRankZeroSeesEveryTokenAndEndsSequencesEverywhere) {
  const Prompts prompts = random_prompts({5, 3}, 131);
  const auto whole = outputs_of(generate(fixture("llama-tiny"), {}, prompts, greedy(10)));
  std::vector<std::vector<int32_t>> seen(2);
  std::atomic<int> right = 0;
  with_model(fixture("llama-tiny"), {2, 3}, [&](const ShardedModel& model, Communicator& world) {
    Engine engine(model, {});
    const auto results = engine.generate(prompts, greedy(10), [&](size_t sequence, int32_t token) {
      EXPECT_EQ(world.rank(), 0);
      seen[sequence].push_back(token);
      return sequence == 1 && seen[1].size() == 4;
    });
    right += results[0].output == whole[0] && results[0].reason == FinishReason::kLength &&
             results[1].output == std::vector<int32_t>(whole[1].begin(), whole[1].begin() + 4) &&
             results[1].reason == FinishReason::kStop;
  });
  EXPECT_EQ(right, 6);
  EXPECT_EQ(seen[0], whole[0]);
  EXPECT_EQ(seen[1], std::vector<int32_t>(whole[1].begin(), whole[1].begin() + 4));
}

TEST(Engine, RefusesPromptsOutOfRangeAndGoesOn) {
  with_model(fixture("gpt2-tiny"), {}, [](const ShardedModel& model, Communicator&) {
    Engine engine(model, {.max_sequences = 1});
    auto refused = [&](const Prompts& prompts) {
      return message_of<ConfigError>([&] { engine.generate(prompts, greedy(2)); });
    };
    EXPECT_EQ(refused({{3}, {}}), "prompt 1 has no tokens; give some text");
    EXPECT_EQ(refused({std::vector<int32_t>(64, 3)}),
              "prompt 0 has 64 tokens, the context holds 64; shorten it");
    EXPECT_EQ(refused({{3, 131}}),
              "prompt 0 has token 131, the vocabulary is 131; is it the model's own tokenizer?");
    EXPECT_EQ(refused({{-1}}),
              "prompt 0 has token -1, the vocabulary is 131; is it the model's own tokenizer?");
    SamplingOptions bad = greedy(2);
    bad.top_p = 0;
    EXPECT_EQ(message_of<ConfigError>([&] { engine.generate({{3}}, bad); }),
              "top_p=0 is out of range; use a number above 0, at most 1");
    EXPECT_TRUE(engine.generate({}, greedy(2)).empty());
    EXPECT_EQ(engine.generate({std::vector<int32_t>(63, 3)}, greedy(2))[0].output.size(), 1u);
    Engine small(model, {.cache_tokens = 20, .block_size = 4});  // the cache is the context
    EXPECT_EQ(message_of<ConfigError>([&] { small.generate({std::vector<int32_t>(20, 3)}, greedy(2)); }),
              "prompt 0 has 20 tokens, the context holds 20; shorten it");
    EXPECT_EQ(small.generate({std::vector<int32_t>(18, 3)}, greedy(9))[0].output.size(), 2u);
  });
}

TEST(Engine, RefusesOptionsAndLayoutsItCannotRun) {
  run_ranks(2, [](Communicator& world) {
    MeshShape shape;
    shape.tp = 2;
    Mesh mesh(world, shape);
    const ModelConfig config = ModelConfig::from_directory(fixture("llama-tiny"));
    auto refused = [&](const ModelLayout& layout, const EngineOptions& options) {
      return message_of<ConfigError>([&] {
        ShardedModel model(config, mesh, layout);
        allocate_values(model.parameters(), DType::kF32, Device::cpu());
        Engine engine(model, options);
      });
    };
    EXPECT_EQ(refused({3, {}, false}, {}),
              "generation runs one chunk of layers a rank; use parallel.chunks=1");
    EXPECT_EQ(refused({1, {}, true}, {}),
              "generation steps have too few rows to split; use parallel.sequence=false");
    EXPECT_EQ(refused({}, {.max_sequences = 0}),
              "engine: max_sequences=0 is out of range; use 1 to 2147483648");
    EXPECT_EQ(refused({}, {.block_size = -16}),
              "engine: block_size=-16 is out of range; use 1 to 2147483648");
    EXPECT_EQ(refused({}, {.cache_tokens = int64_t{1} << 62}),
              "engine: cache_tokens=4611686018427387904 is out of range; use 0 to 2147483648");
    EXPECT_EQ(refused({}, {.max_step_tokens = 0}),
              "engine: max_step_tokens=0 is out of range; use 1 to 2147483648");
  });
}

// The last stage alone sees the logits; the others must not wait for it, and the cache must be free again.
TEST(Engine, LogitsThatAreNotFiniteAreAnErrorOnEveryRankAndLeaveItUsable) {
  const Prompts prompts = random_prompts({7}, 131);
  const auto want = outputs_of(generate(fixture("llama-tiny"), {}, prompts, greedy(6)));
  std::atomic<int> threw = 0, right = 0;
  with_model(fixture("llama-tiny"), {2, 3}, [&](const ShardedModel& model, Communicator&) {
    Engine engine(model, {.max_sequences = 1});
    const auto& weight = model.parameters().all()[0]->value;
    std::vector<float> values(weight.data<float>(), weight.data<float>() + weight.numel());
    std::fill_n(weight.data<float>(), weight.numel(), std::numeric_limits<float>::quiet_NaN());
    threw += message_of<Error>([&] { engine.generate(prompts, greedy(6)); }) ==
             "prompt 0: the logits of token 7 have no largest finite one; the model's weights or activations "
             "overflow";
    std::copy(values.begin(), values.end(), weight.data<float>());
    right += outputs_of(engine.generate(prompts, greedy(6))) == want;
  });
  EXPECT_EQ(threw, 6);
  EXPECT_EQ(right, 6);
}

}  // namespace
}  // namespace trireme::testing
