// Training runs as whole jobs: what they do when a config is wrong, when processes die or stop, and when
// files and numbers are bad.
#include <fstream>
#include <regex>
#include <sstream>

#include "model/weight_files.h"
#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

TEST_F(Launch, TwoRanksTrainGoOnAndWriteTheTextThatOneRankWrites) {
  expect_ends(2, training({"parallel.tensor=2"}), 0);
  expect_says(expect_ends(2, training({"parallel.tensor=2"}), 0), "at step 12");
  const Words words = {"generate",      "--model", at("run/latest"), "--prompt", "The",
                       "--temperature", "0",       "--max-tokens",   "16"};
  const auto said = [&](int ranks) {
    std::string output = expect_ends(ranks, words, 0);
    const size_t report = output.find("first token after ");  // how fast it was
    EXPECT_NE(report, output.npos) << output;
    return output.substr(0, report);
  };
  EXPECT_EQ(said(2), said(0));
}

TEST_F(Launch, AWrongConfigEndsAllRanksWithOneLineThatSaysWhat) {
  // mpirun kills the other ranks as soon as one has ended: none may end before rank 0 has said why.
  setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1);
  const auto expect_one_line = [&](const Words& words, const std::string& part) {
    const std::string output = expect_ends(2, words, 2);
    std::istringstream lines(output);
    int errors = 0;
    for (std::string line; std::getline(lines, line);) {
      if (line.find("trireme: ") == line.npos) continue;
      ++errors;
      expect_says(line, part);
    }
    EXPECT_EQ(errors, 1) << output;
    expect_none_left();
  };
  const std::pair<Words, std::string> cases[] = {
      {{"parallel.tensr=2"}, "parallel.tensr=2 is not a known key; did you mean parallel.tensor?"},
      {{"train.steps=many"}, "train.steps=many is the string \"many\"; it must be an integer"},
      {{"train.learning_rate=1e30"}, "out of range; it must be in (0, 100]"},
      {{"parallel.pipeline=2", "model.n_layer=3"},
       "parallel.pipeline=2 does not divide model.num_hidden_layers=3; use a"},
      {{"parallel.tensor=4"}, "start a multiple of 4 ranks or change the layout"},
      {{"data.train=/absent.tokens"}, "data.train=/absent.tokens is not there; check the path"},
      {{"model.vocab_size=290"}, "; use model.vocab_size=300"},
      {{"--no-such"}, "--no-such is not an option here"}};
  for (const auto& [overrides, part] : cases) expect_one_line(training(overrides), part);
  std::ofstream(at("twice.yaml")) << "run:\n  seed: 1\n  seed: 2\n";
  expect_one_line({"train", at("twice.yaml")}, "twice.yaml:3:3: run.seed is given twice, first on line 2");
  expect_one_line({"train", at("absent.yaml")}, "absent.yaml");
  expect_one_line({"trian", at("run.yaml")}, "\"trian\" is not a command; did you mean train?");
  expect_one_line({"generate", "--prompt", "a"}, "--model");
  unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
}

TEST_F(Launch, WhatAllRanksAnswerAlikeIsPrintedOnce) {
  const auto expect_once = [&](const Words& words, const std::string& part) {
    const std::string output = expect_ends(2, words, 0);
    expect_says(output, part);
    EXPECT_EQ(output.find(part), output.rfind(part)) << output;
  };
  expect_once({"--version"}, "trireme ");
  expect_once({"--help"}, "usage: trireme COMMAND");
  expect_once({"train", "--help"}, "usage: trireme train");
  expect_once(training({"parallel.tensor=2", "--dry-run"}), "tensor 2");
}

TEST_F(Launch, ASignalSavesAndTheRunGoesOnExactly) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const auto words = [&](const std::string& name, int steps) {
      return training({"parallel.tensor=2", "run.dir=" + at(name + std::to_string(signal)),
                       "train.steps=" + std::to_string(steps)});
    };
    Process p(trireme_command(2, words("run", 1'000'000)));  // does not end by itself
    ASSERT_TRUE(p.wait_for("step 4/")) << p.output();
    kill(p.pid(), signal);
    const int code = p.wait();
    // mpirun gives the ranks' exit code, but after a SIGTERM to itself one of its own.
    if (signal == SIGTERM) {
      EXPECT_GT(code, 0) << p.output();
    } else {
      EXPECT_EQ(code, 75) << p.output();
    }
    expect_loadable("run" + std::to_string(signal));
    const std::string latest = fs::read_symlink(at("run" + std::to_string(signal)) + "/latest").filename();
    const int step = std::stoi(latest.substr(latest.find('-') + 1));
    // After a SIGTERM mpirun forwards no more lines when it is late, nor waits long for a save.
    if (signal != SIGTERM) {
      ASSERT_TRUE(p.says(text("stopping on a signal after step ", step, ":"))) << p.output();
    }
    EXPECT_EQ(step_gone_on_from(expect_ends(2, words("run", step + 3), 0)), step);
    expect_ends(2, words("whole", step + 3), 0);
    EXPECT_EQ(losses("run" + std::to_string(signal)), losses("whole" + std::to_string(signal)));
    EXPECT_EQ(losses("run" + std::to_string(signal)).size(), static_cast<size_t>(step + 3));
  }
}

TEST_F(Launch, ARankKilledInACollectiveEndsTheJobAndTheRunGoesOn) {
  // It sleeps there each time that the other rank is late, so the 30th sleep comes long before the end.
  for (const int rank : {0, 1}) {
    const Words always = {"parallel.tensor=2", "run.dir=" + at("run" + std::to_string(rank)),
                          "checkpoint.every_steps=1"};
    Words words = training(always);
    words.push_back("train.steps=5000");
    Process p(trireme_command(
        2, words, with_fault({"FAULT=waiting", "FAULT_AT=30", "FAULT_RANK=" + std::to_string(rank)})));
    EXPECT_EQ(p.wait(), 128 + SIGKILL) << p.output();
    expect_says(p.output(), "fault: killed in a collective");
    expect_none_left();
    words.back() = "train.steps=1";
    const int from = step_gone_on_from(expect_ends(2, words, 0));
    const std::string steps = std::to_string(from + 2);
    words.back() = "train.steps=" + steps;
    expect_says(expect_ends(2, words, 0), "step " + steps + "/" + steps);
  }
}

TEST_F(Launch, AStoppedRankIsNamedWithHostStepAndCollectiveAndNoneIsLeft) {
  for (const size_t stopped : {0, 1}) {
    Process p(trireme_command(2, training({"parallel.tensor=2", "train.steps=100000", "comm.timeout_s=3",
                                           "run.dir=" + at("run" + std::to_string(stopped))})));
    ASSERT_TRUE(p.wait_for("step 4/")) << p.output();
    const auto ranks = ranks_with(dir_.path().string());
    ASSERT_EQ(ranks.size(), 2u);
    kill(ranks[stopped], SIGSTOP);
    EXPECT_EQ(p.wait(), 42) << p.output();
    const std::string rank = std::to_string(stopped);
    const std::regex line(
        "comm\\[(world|tp) " + std::to_string(1 - stopped) +
        "/2, host [^ ]+\\]: (all_reduce|all_gather|broadcast|reduce_scatter|barrier)[^;]* at step "
        "[0-9]+ timed out after [0-9]+ ms; rank " +
        rank + " \\(world rank " + rank + ", host [^ ]+\\) does not answer: stopped, dead or unreachable");
    EXPECT_TRUE(std::regex_search(p.output(), line)) << p.output();
    expect_none_left();
  }
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

TEST_F(Launch, StepsWithoutANumberAreSkippedAndEndTheRunWithFiniteWeightsSaved) {
  const Words wild = training({"train.learning_rate=100", "train.weight_decay=0.9", "train.clip_grad_norm=0",
                               "train.steps=100", "train.max_skipped_steps=3", "checkpoint.every_steps=1"});
  const std::string output = expect_ends(0, wild, 17);
  expect_says(output, "skipped, nothing was changed");
  expect_says(output, "more than train.max_skipped_steps=3 steps in a row");
  // Saved after a step that was skipped, so NaN and Inf were near.
  const fs::path latest = fs::canonical(at("run/latest"));
  expect_says(output, "saved " + at("run") + "/" + latest.filename().string());
  const int step = std::stoi(latest.filename().string().substr(5));
  expect_says(output, "warning: step " + std::to_string(step) + ": loss ");
  expect_loadable("run");
  const WeightSource weights = WeightSource::open(latest);
  int64_t numel = 0;
  for (const std::string& name : weights.names()) numel += weights.info(name).shape.numel();
  EXPECT_NO_THROW(weights.verify());  // no NaN, no Inf
  EXPECT_EQ(numel, 62528);
}

TEST_F(Launch, TheSummaryOfARunThatWentOnCoversItWhole) {
  expect_ends(0, training({"train.steps=5"}), 0);
  expect_says(expect_ends(0, training({}), 0), " in the starts before");
  std::ifstream in(at("run/metrics.jsonl"));
  std::string line, summary;
  while (std::getline(in, line))
    if (line.find("\"type\":\"summary\"") != line.npos) summary = line;
  const auto number = [&](const std::string& key) {
    const size_t begin = summary.find("\"" + key + "\":");
    return begin == summary.npos ? -1 : std::stod(summary.substr(begin + key.size() + 3));
  };
  EXPECT_EQ(number("step"), 12) << summary;
  EXPECT_EQ(number("first_loss"), std::stod(losses("run")[1]));
  EXPECT_EQ(number("last_loss"), std::stod(losses("run")[12]));
  EXPECT_GT(number("earlier_s"), 0.01);
  EXPECT_GT(number("effective_time_ratio"), 0.001);
  EXPECT_LT(number("effective_time_ratio") * (number("earlier_s") + number("total_s")),
            number("earlier_s") + number("compute_s") + number("communication_s") + number("optimizer_s") +
                number("data_s") + 0.1);
}

TEST_F(Launch, ARunInBf16GoesOnToTheBit) {
  const auto run = [&](const std::string& name, int steps) {
    expect_ends(2, training({"parallel.tensor=2", "train.dtype=bf16", "run.dir=" + at(name),
                             "train.steps=" + std::to_string(steps)}), 0);
  };
  run("whole", 12);
  run("run", 5);
  run("run", 12);
  EXPECT_EQ(losses("run").size(), 12u);
  EXPECT_EQ(losses("run"), losses("whole"));
  for (const std::string file :
       {"model.safetensors", "optimizer-00000.safetensors", "optimizer-00001.safetensors"}) {
    const auto bytes = [&](const std::string& name) {
      std::ifstream in(at(name + "/step-12/" + file), std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(in), {});
    };
    EXPECT_GT(bytes("whole").size(), 60000u) << file;
    EXPECT_TRUE(bytes("run") == bytes("whole")) << file;
  }
}

// Most of the time is in matrix products here, and a signal that interrupts one must not touch its memory.
TEST_F(Launch, ASignalInAProductDoesNoHarm) {
  for (int run = 0; run < 4; ++run) {
    const std::string dir = "signal-" + std::to_string(run);
    Process p(trireme_command(0, training({"run.dir=" + at(dir), "train.steps=2000", "model.n_embd=256", "train.micro_batch=4",
                                           "train.learning_rate=1e-4"})));
    ASSERT_TRUE(p.wait_for("step 3/")) << p.output();
    kill(p.pid(), run % 2 ? SIGTERM : SIGUSR1);
    EXPECT_EQ(p.wait(), 75) << p.output();
    expect_loadable(dir);
  }
}

}  // namespace
}  // namespace trireme::testing
