// Damaged config files: an error of one line or a config, never a crash, a hang or another exception.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "trainer/model_section.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {
namespace {

const std::string kValid = R"(# a comment
run: {name: "a b", seed: 42, device: cpu}
model:
  model_type: llama
  vocab_size: 999
  hidden_size: 64
  num_hidden_layers: 4
  num_attention_heads: 8
  num_key_value_heads: 4
  intermediate_size: 128
  max_position_embeddings: 512
  rope_scaling: {rope_type: linear, factor: 2.0}
  architectures: [LlamaForCausalLM]
  id2label: {'0': a}
tokenizer: {path: tok}
data:
  train:
    - path: one.tokens
      weight: 0.25
    - two.tokens
  validation: [v.tokens]
  sequence_length: 256
train:
  steps: 1000
  betas: [0.9, 0.95]
  learning_rate: 3e-4
  early_stopping:
    patience: 3
    metric: train_loss
parallel: {tensor: 2, layers_per_stage: [], schedule: 1f1b}
sample:
  prompts: ["Once\nupon", 'a ''time''']
  tokens: 16
)";

// Runs the text through all that reads it. Returns the error, "" if there is none.
std::string outcome(const std::string& yaml) {
  try {
    const RunConfig config = parse_run_config(yaml, "f.yaml");
    const RunConfig again = parse_run_config(dump_run_config(config), "dump.yaml");
    EXPECT_TRUE(again == config) << yaml;
    validate(config, load_model_config(config), {2, {}});
    return "";
  } catch (const ConfigError& e) {
    return e.what();
  }
}

TEST(ConfigFuzz, TheStartIsValid) { EXPECT_EQ(outcome(kValid), ""); }

TEST(ConfigFuzz, MutationsGiveAnErrorOfOneLineOrAConfig) {
  const std::vector<std::string> pieces = {"&a ",
                                           "*a",
                                           "!!int ",
                                           "- ",
                                           "? ",
                                           ": ",
                                           "{",
                                           "}",
                                           "[",
                                           "]",
                                           "|",
                                           ">",
                                           "'",
                                           "\"",
                                           "\\",
                                           "#",
                                           "\n",
                                           "\n  ",
                                           "\t",
                                           "\r",
                                           "---\n",
                                           "...\n",
                                           "%YAML 1.2\n",
                                           "<<: ",
                                           "~",
                                           "null",
                                           "true",
                                           "yes",
                                           "010",
                                           "0x1F",
                                           "1e999",
                                           "-1",
                                           ".inf",
                                           ".nan",
                                           "1_0",
                                           "99999999999999999999",
                                           "9223372036854775807",
                                           "\"\\u0000\"",
                                           "\"\\ud800\"",
                                           std::string(1, '\0'),
                                           "\xff",
                                           "\xed\xa0\x80",
                                           "\xef\xbb\xbf",
                                           "\x7f",
                                           "a:\n",
                                           "[[[[[[",
                                           "{a: {b: {c: ",
                                           ",",
                                           "steps: 5\n",
                                           "  steps: 5\n",
                                           "model: {}\n"};
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < kValid.size();) {
    const size_t end = kValid.find('\n', begin) + 1;
    lines.push_back(kValid.substr(begin, end - begin));
    begin = end;
  }
  int accepted = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string yaml = kValid;
    for (size_t change = 0, changes = 1 + below(3); change < changes; ++change) {
      const size_t at = below(yaml.size());
      switch (below(6)) {
        case 0: yaml[at] = static_cast<char>(below(256)); break;
        case 1: yaml.erase(at, 1 + below(8)); break;
        case 2: yaml.insert(at, pieces[below(pieces.size())]); break;
        case 3: yaml.insert(at, yaml.substr(below(yaml.size()), 1 + below(40))); break;
        case 4: yaml.insert(yaml.rfind('\n', at) == std::string::npos ? 0 : yaml.rfind('\n', at) + 1,
                            lines[below(lines.size())]); break;
        default: yaml.resize(at + 1); break;
      }
    }
    const std::string error = outcome(yaml);
    EXPECT_EQ(error.find('\n'), std::string::npos) << error << "\n" << yaml;
    EXPECT_LT(error.size(), 1000u) << error;
    (error.empty() ? accepted : refused) += 1;
  }
  // Both happen, or the mutations test nothing.
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 1000);
}

TEST(ConfigFuzz, HugeAndDeepInputEndsSoon) {
  constexpr size_t kLarge = 1 << 18;
  std::vector<std::string> inputs = {
      std::string(kLarge, 'a'),  std::string(kLarge, '-'),  std::string(kLarge, ' '),
      std::string(kLarge, '\n'), std::string(kLarge, '"'),  std::string(kLarge, '\''),
      std::string(kLarge, '{'),  std::string(kLarge, '['),  std::string(kLarge, ':'),
      std::string(kLarge, '?'),  std::string(kLarge, '#'),  std::string(kLarge, '&'),
      std::string(kLarge, '*'),  std::string(kLarge, '!'),  std::string(kLarge, '|'),
      std::string(kLarge, ','),  std::string(kLarge, '\t'), std::string(kLarge, '%')};
  const auto repeat = [](const std::string& unit) {
    std::string all;
    while (all.size() + unit.size() <= kLarge) all += unit;
    return all;
  };
  for (const char* unit :
       {"a: ", "- ", "? ", "[a, ", "{a: ", "a\n", "a:\n", "\"a\" ", "'' ", "- a\n", "? a\n", "[] ", "a: [\n",
        "\\u0000", "# a\n", "\xe2\x82\xac", "- - \n", "|\n ", "&a [*a, "})
    inputs.push_back(repeat(unit));
  inputs.push_back("run: {name: \"" + std::string(200'000, 'x') + "\"}\n");
  inputs.push_back("run: {seed: " + std::string(200'000, '9') + "}\n");
  inputs.push_back("run: {seed: 0." + std::string(200'000, '9') + "}\n");
  inputs.push_back(std::string(200'000, 'k') + ": 1\n");
  inputs.push_back("? " + std::string(200'000, 'k') + "\n: 1\n");
  std::string keys;
  for (int i = 0; i < 20'000; ++i) keys += "key" + std::to_string(i) + ": 1\n";
  inputs.push_back(keys);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string error = outcome(inputs[i]);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    EXPECT_FALSE(error.empty()) << "input " << i;
    EXPECT_LT(error.size(), 1000u) << error.substr(0, 200);
    EXPECT_LT(seconds, 20) << "input " << i << ": " << error;  // a hang, not slowness, on any machine
  }
}

TEST(ConfigFuzz, OverridesNeverCrash) {
  std::mt19937 random(11);
  const std::string letters = "[]{},:=\"'&*!|>#-?. ~019eax\n\t\\%@`_";
  const std::vector<std::string> keys = {
      "train.steps",        "data.train", "run.name",       "train.betas", "parallel.layers_per_stage",
      "model.rope_scaling", "model.from", "sample.prompts", "log.jsonl",   "train.dtype"};
  for (int round = 0; round < 1000; ++round) {
    std::string argument = keys[random() % keys.size()] + "=";
    for (size_t i = 0, n = random() % 12; i < n; ++i) argument += letters[random() % letters.size()];
    try {
      parse_run_config(kValid, "f.yaml", {argument});
    } catch (const ConfigError& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace trireme
