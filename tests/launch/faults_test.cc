// Training runs as whole jobs: what they do when a config is wrong, and when processes, files and disks fail.
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <map>
#include <sstream>

#include "process.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

class Launch : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string text = std::string(TRIREME_SOURCE_DIR) + "/README.md";
    expect_ends(0, {"tokenize", "train", "--out", at("tok"), "--vocab-size", "300", text}, 0);
    expect_ends(0, {"prepare", "--tokenizer", at("tok"), "--out", at("train.tokens"), "--split", "blank-lines", text}, 0);
    std::ofstream(at("run.yaml"))
        << "run: {dir: " << at("run") << ", log_every_steps: 1, threads: 1}\n"
        << "model: {model_type: gpt2, vocab_size: 300, n_embd: 32, n_layer: 4, n_head: 4, n_positions: 64}\n"
        << "tokenizer: {path: " << at("tok") << "}\n"
        << "data: {train: " << at("train.tokens") << ", sequence_length: 64}\n"
        << "train: {steps: 12, global_batch: 4, learning_rate: 3e-3}\n"
        << "checkpoint: {every_steps: 5, every_minutes: 0}\n";
  }
  void TearDown() override {
    for (pid_t pid : ranks_with(dir_.path().string())) {
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
  std::string expect_ends(int ranks, const Words& words, int code, size_t file_limit = 0) {
    Process p(trireme_command(ranks, words), file_limit);
    EXPECT_EQ(p.wait(), code) << p.output();
    return p.output();
  }
  static void expect_says(const std::string& output, const std::string& part) {
    EXPECT_NE(output.find(part), output.npos) << "no '" << part << "' in: " << output;
  }
  // Of each step of a run, as printed.
  std::map<std::string, std::string> losses(const std::string& run) const {
    std::map<std::string, std::string> found;
    std::ifstream in(at(run) + "/metrics.jsonl");
    const auto value = [](const std::string& line, const std::string& key) {
      const size_t begin = line.find("\"" + key + "\":") + key.size() + 3;
      return line.substr(begin, line.find_first_of(",}", begin) - begin);
    };
    for (std::string line; std::getline(in, line);)
      if (line.find("\"step\",") != line.npos) found[value(line, "step")] = value(line, "loss");
    return found;
  }

  TempDir dir_;
};

TEST_F(Launch, TwoRanksTrainGoOnAndWriteTheTextThatOneRankWrites) {
  expect_ends(2, training({"parallel.tensor=2"}), 0);
  expect_says(expect_ends(2, training({"parallel.tensor=2"}), 0), "at step 12");
  const Words words = {"generate", "--model", at("run/latest"), "--prompt", "The", "--temperature", "0", "--max-tokens", "16"};
  EXPECT_EQ(expect_ends(2, words, 0), expect_ends(0, words, 0));
}

TEST_F(Launch, AWrongConfigEndsAllRanksWithOneLineThatSaysWhat) {
  const std::pair<Words, std::string> cases[] = {
      {{"parallel.tensr=2"}, "parallel.tensr=2 is not a known key; did you mean parallel.tensor?"},
      {{"train.steps=many"}, "train.steps=many is the string \"many\"; it must be an integer"},
      {{"train.learning_rate=1e30"}, "out of range; it must be in (0, 100]"},
      {{"parallel.pipeline=2", "model.n_layer=3"}, "parallel.pipeline=2 does not divide model.num_hidden_layers=3; use a"},
      {{"parallel.tensor=4"}, "start a multiple of 4 ranks or change the layout"},
      {{"data.train=/absent.tokens"}, "data.train=/absent.tokens is not there; check the path"},
      {{"model.vocab_size=290"}, "; use model.vocab_size=300"},
      {{"--no-such"}, "--no-such is not an option here"}};
  for (const auto& [overrides, part] : cases) expect_says(expect_ends(2, training(overrides), 2), part);
  std::ofstream(at("twice.yaml")) << "run:\n  seed: 1\n  seed: 2\n";
  expect_says(expect_ends(2, {"train", at("twice.yaml")}, 2), "twice.yaml:3:3: run.seed is given twice, first on line 2");
  expect_says(expect_ends(2, {"trian", at("run.yaml")}, 2), "\"trian\" is not a command; did you mean train?");
}

TEST_F(Launch, ASignalSavesAndTheRunGoesOnExactly) {
  expect_ends(2, training({"parallel.tensor=2", "train.steps=800", "run.dir=" + at("whole")}), 0);
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const std::string name = "run" + std::to_string(signal);
    const Words words = training({"parallel.tensor=2", "train.steps=800", "run.dir=" + at(name)});
    Process p(trireme_command(2, words));
    ASSERT_TRUE(p.wait_for("step 4/800")) << p.output();
    kill(p.pid(), signal);
    const int code = p.wait();
    // mpirun gives the ranks' exit code, but after a SIGTERM to itself one of its own.
    if (signal == SIGTERM) {
      EXPECT_GT(code, 0) << p.output();
    } else {
      EXPECT_EQ(code, 75) << p.output();
    }
    expect_says(p.output(), "stopping on a signal after step ");
    expect_ends(0, {"ckpt", "verify", at(name) + "/latest"}, 0);
    expect_says(expect_ends(2, words, 0), "going on from ");
    EXPECT_EQ(losses(name).size(), 800u);
    EXPECT_EQ(losses(name), losses("whole"));
  }
}

TEST_F(Launch, AKilledRankEndsTheJobAndTheRunGoesOn) {
  const Words words = training({"parallel.tensor=2", "train.steps=800"});
  Process p(trireme_command(2, words));
  ASSERT_TRUE(p.wait_for("saved ")) << p.output();
  const auto ranks = ranks_with(dir_.path().string());
  ASSERT_EQ(ranks.size(), 2u);
  kill(ranks[1], SIGKILL);
  const int code = p.wait();
  EXPECT_TRUE(code > 0) << code << p.output();
  for (pid_t pid : ranks) EXPECT_TRUE(wait_until_gone(pid));
  expect_says(expect_ends(2, words, 0), "going on from ");
}

TEST_F(Launch, AStoppedRankIsNamedAndNoneIsLeft) {
  Process p(trireme_command(2, training({"parallel.tensor=2", "train.steps=1000", "comm.timeout_s=3"})));
  ASSERT_TRUE(p.wait_for("step 4/")) << p.output();
  const auto ranks = ranks_with(dir_.path().string());
  ASSERT_EQ(ranks.size(), 2u);
  kill(ranks[1], SIGSTOP);
  EXPECT_EQ(p.wait(), 42) << p.output();
  expect_says(p.output(), "does not answer: stopped, dead or unreachable");
  for (pid_t pid : ranks) EXPECT_TRUE(wait_until_gone(pid));
}

TEST_F(Launch, ADamagedCheckpointIsPassedOver) {
  expect_ends(0, training({}), 0);
  const std::string file = at("run/step-12/model.safetensors");
  {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(100000);
    const char c = static_cast<char>(f.get() ^ 4);
    f.seekp(100000);
    f.put(c);
  }
  std::string output = expect_ends(0, training({}), 0);
  expect_says(output, "passing over a damaged checkpoint: " + file);
  expect_says(output, "step-10 at step 10");
  fs::resize_file(file, 50000);
  output = expect_ends(0, training({}), 0);
  expect_says(output, file + ": has 50000 bytes");
  expect_says(output, "step-10 at step 10");
}

TEST_F(Launch, AFullDiskIsWarnedOfAndTrainingGoesOn) {
  const std::string output = expect_ends(0, training({}), 0, 300'000);
  expect_says(output, "warning: checkpoint of step 5 failed");
  for (const auto& item : fs::directory_iterator(at("run")))
    EXPECT_FALSE(item.path().filename().string().starts_with("step-")) << item.path();
}

TEST_F(Launch, StepsWithoutANumberAreSkippedAndEndTheRun) {
  const std::string output =
      expect_ends(0, training({"train.learning_rate=100", "train.schedule=constant", "train.weight_decay=0.9",
                               "train.clip_grad_norm=0", "train.steps=100", "train.max_skipped_steps=3"}), 17);
  expect_says(output, "skipped, nothing was changed");
  expect_says(output, "more than train.max_skipped_steps=3 steps in a row");
}

}  // namespace
}  // namespace trireme::testing
