// Saves that are killed, or that find the disk full, at each of their system calls in turn.
#include <fstream>
#include <set>

#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::set<std::string> checkpoint_names(const fs::path& dir) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(dir)) {
    const std::string name = item.path().filename().string();
    if (name.starts_with("step-") || name.starts_with("latest")) names.insert(name);
  }
  return names;
}

// One run, killed in the first save of each start: at its first call, then at its second, to the last. Each
// start goes on from what the kill before it left.
TEST_F(Launch, AKillAtAnyCallOfASaveLeavesACheckpointToGoOnFrom) {
  const Words always = {"checkpoint.every_steps=1", "checkpoint.keep_last=1", "log.tensorboard=false"};
  const auto run = [&](int steps) {
    Words words = training(always);
    words.push_back("train.steps=" + std::to_string(steps));
    return words;
  };
  expect_ends(0, run(1), 0);
  int step = 1, kills = 0, published = 0;
  std::string calls;
  for (bool killed = true; killed; ++kills) {
    ASSERT_LT(kills, 200);
    Process p(trireme_command(
        0, run(step + 2),
        with_fault({"FAULT=kill", "FAULT_AT=" + std::to_string(kills + 1), "FAULT_DIR=" + at("run")})));
    const int code = p.wait();
    killed = p.says("fault: killed at ");
    ASSERT_EQ(code, killed ? 128 + SIGKILL : 0) << p.output();
    const int from = step_gone_on_from(p.output());
    ASSERT_TRUE(from == step || from == step + 1) << from << " after " << step << ": " << p.output();
    EXPECT_FALSE(p.says("damaged")) << p.output();
    published += from == step + 1;
    step = from;
    expect_loadable("run");
    if (killed) calls += p.output().substr(p.output().find("fault: killed at ") + 17);
  }
  // It went through all of a save: files, folders, the rename, the link, and what is too old.
  for (const char* call : {"mkdir", "open", "write", "fsync", "rename", "symlink", "unlinkat"})
    EXPECT_GE(count(calls, call), 1) << calls;
  EXPECT_GT(kills, 40);
  EXPECT_GT(published, 5);
  EXPECT_LT(published, kills - 25);
  // No step was lost, none trained twice on the way: as a run that nothing happened to.
  const int steps = losses("run").rbegin()->first;
  expect_ends(0, training({"train.steps=" + std::to_string(steps), "run.dir=" + at("whole")}), 0);
  EXPECT_EQ(losses("run"), losses("whole"));
  expect_ends(0, run(steps + 1), 0);
  EXPECT_EQ(checkpoint_names(at("run")),
            (std::set<std::string>{"latest", "step-" + std::to_string(steps + 1)}));
}

// The n-th save finds the disk full at its n-th call.
TEST_F(Launch, NoSpaceAtAnyCallOfASaveIsWarnedOfAndTrainingGoesOn) {
  const Words words = training({"checkpoint.every_steps=1", "checkpoint.keep_last=1", "train.steps=90"});
  const std::string output = expect_ends(0, words, 0, with_fault({"FAULT=full", "FAULT_DIR=" + at("run")}));
  const int faults = count(output, "fault: no space at ");
  EXPECT_GT(faults, 40) << output;
  EXPECT_EQ(count(output, "warning: "), faults) << output;
  EXPECT_GT(count(output, "failed, the one before is kept: "), 25) << output;
  EXPECT_GT(count(output, "saved "), 40) << output;
  expect_loadable("run");
  EXPECT_EQ(checkpoint_names(at("run")), (std::set<std::string>{"latest", "step-90"}));
  expect_ends(0, training({"train.steps=90", "run.dir=" + at("whole")}), 0);
  EXPECT_EQ(losses("run"), losses("whole"));
}

TEST_F(Launch, ARankKilledInASaveEndsTheJobAndTheRunGoesOnExactly) {
  const Words words = training({"parallel.data=2", "parallel.zero=1"});
  // Rank 1 is in the middle of its file of step 10, which it is to fill before rank 0 publishes.
  expect_ends(2, training({"parallel.data=2", "parallel.zero=1", "train.steps=5"}), 0);
  Process p(trireme_command(2, words,
                            with_fault({"FAULT=kill", "FAULT_FILE=step-10.tmp/optimizer-00001", "FAULT_AT=2",
                                        "FAULT_RANK=1", "FAULT_DIR=" + at("run")})));
  EXPECT_EQ(p.wait(), 128 + SIGKILL) << p.output();
  expect_says(p.output(), "fault: killed at write " + at("run/step-10.tmp/optimizer-00001.safetensors"));
  expect_none_left();
  expect_loadable("run");
  EXPECT_EQ(step_gone_on_from(expect_ends(2, words, 0)), 5);
  expect_ends(2, training({"parallel.data=2", "parallel.zero=1", "run.dir=" + at("whole")}), 0);
  EXPECT_EQ(losses("run"), losses("whole"));
  EXPECT_EQ(losses("run").size(), 12u);
}

TEST_F(Launch, AFullDiskIsWarnedOfAndTheSavesAfterItSucceed) {
  expect_ends(2, training({"parallel.tensor=2", "train.steps=5"}), 0);
  const std::string output = expect_ends(2, training({"parallel.tensor=2"}), 0, with_file_limit(200 << 10));
  EXPECT_EQ(step_gone_on_from(output), 5);
  expect_says(output, "warning: checkpoint of step 10 failed, the one before is kept: rank 0: " +
                          at("run/step-10.tmp/optimizer-00000.safetensors") +
                          ": cannot write: File too large");
  expect_says(output, "warning: checkpoint of step 12 failed");
  EXPECT_EQ(checkpoint_names(at("run")), (std::set<std::string>{"latest", "step-5"}));
  expect_loadable("run");
  EXPECT_EQ(step_gone_on_from(expect_ends(2, training({"parallel.tensor=2"}), 0)), 5);
  EXPECT_EQ(checkpoint_names(at("run")), (std::set<std::string>{"latest", "step-10", "step-12"}));
}

}  // namespace
}  // namespace trireme::testing
