// A shipped recipe that cannot start is a defect: each file in configs/ must read, and fit 1, 2 and 4 ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "trainer/model_section.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> shipped_configs() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(TRIREME_SOURCE_DIR) / "configs"))
    if (entry.path().extension() == ".yaml") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Weights of the model, as its papers count them: embeddings once, norms and biases included.
int64_t num_weights(const ModelConfig& m) {
  const int64_t d = m.hidden_size, f = m.intermediate_size, heads = m.num_attention_heads * m.head_dim,
                kv = m.num_key_value_heads * m.head_dim;
  const int64_t embeddings = m.vocab_size * d * (m.tie_word_embeddings ? 1 : 2);
  if (m.model_type == "gpt2")
    return embeddings + m.max_position_embeddings * d +
           m.num_hidden_layers * (4 * d * d + 4 * d + 2 * d * f + d + f + 4 * d) + 2 * d;
  return embeddings + m.num_hidden_layers * (d * (2 * heads + 2 * kv) + 3 * d * f + 2 * d) + d;
}

TEST(ShippedConfigs, ReadAndFitEveryUsualNumberOfRanks) {
  const auto paths = shipped_configs();
  ASSERT_GE(paths.size(), 5u);
  for (const fs::path& path : paths) {
    SCOPED_TRACE(path);
    RunConfig config;
    ASSERT_NO_THROW(config = load_run_config(path));
    EXPECT_EQ(config.run.name, path.stem().string());
    if (!config.model.from.empty()) continue;  // its folder is the user's
    const ModelConfig model = load_model_config(config);
    for (int world : {1, 2, 4}) {
      RunPlan plan;
      EXPECT_NO_THROW(plan = validate(config, model, {world, 100'000})) << world << " ranks";
      EXPECT_TRUE(plan.warnings.empty()) << (plan.warnings.empty() ? "" : plan.warnings[0]);
      EXPECT_GT(plan.total_steps.value_or(0), 0);
    }
    EXPECT_TRUE(parse_run_config(dump_run_config(config), "dump") == config);
  }
}

TEST(ShippedConfigs, TinyOnesFitEveryAxis) {
  for (const char* name : {"tiny-gpt2", "tiny-llama"})
    for (const auto& [world, layout] : std::vector<std::pair<int, std::vector<std::string>>>{
             {2, {"parallel.tensor=2", "parallel.sequence=true"}},
             {4, {"parallel.pipeline=4", "parallel.schedule=zb-h1"}},
             {2, {"parallel.pipeline=2", "parallel.schedule=interleaved", "parallel.chunks=2"}},
             {8, {"parallel.tensor=2", "parallel.pipeline=2", "parallel.zero=2"}}}) {
      const RunConfig config =
          load_run_config(fs::path(TRIREME_SOURCE_DIR) / "configs" / (std::string(name) + ".yaml"), layout);
      EXPECT_NO_THROW(validate(config, load_model_config(config), {world, {}}))
          << name << " on " << world;
    }
}

TEST(ShippedConfigs, HaveTheSizesTheyAreNamedFor) {
  const auto weights = [](const char* name) {
    return num_weights(load_model_config(load_run_config(fs::path(TRIREME_SOURCE_DIR) / "configs" / name)));
  };
  EXPECT_EQ(weights("gpt2-124m.yaml"), 124'439'808);
  EXPECT_EQ(weights("llama-134m.yaml"), 134'105'856);
}

}  // namespace
}  // namespace trireme
