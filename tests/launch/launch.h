// A small run in a folder of its own, started as a whole job.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <map>
#include <string>

#include "tests/launch/process.h"
#include "tests/test_data.h"

namespace trireme::testing {

class Launch : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string text = std::string(TRIREME_SOURCE_DIR) + "/README.md";
    expect_ends(0, {"tokenize", "train", "--out", at("tok"), "--vocab-size", "300", text}, 0);
    expect_ends(
        0, {"prepare", "--tokenizer", at("tok"), "--out", at("train.tokens"), "--split", "blank-lines", text},
        0);
    std::ofstream(at("run.yaml"))
        << "run: {dir: " << at("run") << ", log_every_steps: 1, threads: 1}\n"
        << "model: {model_type: gpt2, vocab_size: 300, n_embd: 32, n_layer: 4, n_head: 4, n_positions: 64}\n"
        << "tokenizer: {path: " << at("tok") << "}\n"
        << "data: {train: " << at("train.tokens") << ", sequence_length: 64}\n"
        << "train: {steps: 12, global_batch: 4, learning_rate: 3e-3, schedule: constant}\n"
        << "checkpoint: {every_steps: 5, every_minutes: 0}\n";
  }
  void TearDown() override { expect_none_left(); }

  void expect_none_left() const {
    for (pid_t pid : ranks_with(dir_.path().string())) {
      if (wait_until_gone(pid)) continue;
      ADD_FAILURE() << "process " << pid << " is left";
      kill(pid, SIGKILL);
    }
  }

  std::string at(const std::string& name) const { return (dir_.path() / name).string(); }
  Words training(const Words& overrides) const {
    Words words = {"train", at("run.yaml")};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return words;
  }
  // Runs `trireme WORDS` to its end and returns what it said. `before`: see trireme_command().
  std::string expect_ends(int ranks, const Words& words, int code, const Words& before = {}) const {
    Process p(trireme_command(ranks, words, before));
    EXPECT_EQ(p.wait(), code) << p.output();
    return p.output();
  }
  static void expect_says(const std::string& output, const std::string& part) {
    EXPECT_NE(output.find(part), output.npos) << "no '" << part << "' in: " << output;
  }
  void expect_loadable(const std::string& run) const {
    expect_ends(0, {"ckpt", "verify", at(run) + "/latest"}, 0);
  }

  // Of each step of a run, as printed.
  std::map<int, std::string> losses(const std::string& run) const {
    std::map<int, std::string> found;
    std::ifstream in(at(run) + "/metrics.jsonl");
    const auto value = [](const std::string& line, const std::string& key) {
      const size_t begin = line.find("\"" + key + "\":") + key.size() + 3;
      return line.substr(begin, line.find_first_of(",}", begin) - begin);
    };
    for (std::string line; std::getline(in, line);)
      if (line.find("\"step\",") != line.npos) found[std::stoi(value(line, "step"))] = value(line, "loss");
    return found;
  }
  // The step that a run says it goes on from; 0: it started anew.
  static int step_gone_on_from(const std::string& output) {
    const size_t at = output.find("going on from ");
    return at == output.npos ? 0 : std::stoi(output.substr(output.find(" at step ", at) + 9));
  }

  TempDir dir_;
};

}  // namespace trireme::testing
