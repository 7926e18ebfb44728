// trireme convert as users call it; training from what it reads and writes.
#include <fstream>

#include "base/files.h"
#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

TEST_F(Launch, PickledWeightsAreConvertedOrTrainedFromAsTheyAre) {
  const std::string from = fixture("torch/gpt2-bin").string();
  const std::string output = expect_ends(0, {"convert", from, at("converted")}, 0);
  expect_says(output, at("converted") + ": 17 tensors, ");
  expect_says(output, "; copied: nothing but config.json");
  // The same model by every way to it gives the same losses, to the last printed digit.
  const auto train = [&](const std::string& model, const std::string& run) {
    std::ofstream(at("from.yaml")) << "run: {dir: " << at(run) << ", log_every_steps: 1, threads: 1}\n"
                                   << "model: {from: " << model << "}\n"
                                   << "tokenizer: {path: " << at("tok") << "}\n"
                                   << "data: {train: " << at("train.tokens") << ", sequence_length: 64}\n"
                                   << "train: {steps: 3, global_batch: 4, learning_rate: 1e-2, schedule: constant}\n";
    expect_ends(0, {"train", at("from.yaml")}, 0);
    return losses(run);
  };
  const auto pickled = train(from, "run-a");
  EXPECT_EQ(pickled.size(), 3u);
  EXPECT_NE(pickled.at(1), pickled.at(3));
  EXPECT_EQ(train(at("converted"), "run-b"), pickled);
  // A checkpoint is converted without what is beside the model; its run's folder is none.
  expect_says(expect_ends(0, {"convert", at("run-a"), at("no")}, 2), "is a run's folder; convert " + at("run-a/latest"));
  expect_says(expect_ends(0, {"convert", at("run-a/latest"), at("bf16"), "--dtype", "bf16"}, 0), "and config.json");
  EXPECT_FALSE(fs::exists(at("bf16/state.json")));
  EXPECT_TRUE(fs::exists(at("bf16/tokenizer.json")));
  expect_ends(0, {"generate", "--model", at("bf16"), "--prompt", "the", "--max-tokens", "2"}, 0);
  // One that is damaged is not.
  std::fstream weights(at("run-a/latest/model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(-1, std::ios::end);
  weights.put('\x42');
  weights.close();
  expect_says(expect_ends(0, {"convert", at("run-a/latest"), at("no")}, 2), "its contents are not what was written");
  EXPECT_FALSE(fs::exists(at("no")));
}

TEST_F(Launch, AConversionThatFindsTheDiskFullLeavesNothing) {
  const std::string from = fixture("torch/gpt2-bin").string();
  expect_says(expect_ends(0, {"convert", from, at("to")}, 2, with_file_limit(8000)), "File too large");
  EXPECT_FALSE(fs::exists(at("to")));
  EXPECT_FALSE(fs::exists(at("to.tmp")));
  // At each call that changes files. (The faults are for folders called step-N.)
  const std::string to = at("runs/step-1");
  fs::create_directory(at("runs"));
  std::string calls;
  int failures = 0;
  for (bool failed = true; failed; ++failures) {
    ASSERT_LT(failures, 200);
    Process p(trireme_command(0, {"convert", from, to},
                              with_fault({"FAULT=full", "FAULT_AT=" + std::to_string(failures + 1), "FAULT_DIR=" + at("runs")})));
    const int code = p.wait();
    failed = p.says("fault: ");
    ASSERT_EQ(code, failed ? 2 : 0) << p.output();
    EXPECT_FALSE(fs::exists(to + ".tmp")) << p.output();
    if (failed) {
      expect_says(p.output(), "No space left on device");
      calls += p.output();
      // Only that its name may not last is known after it was renamed.
      EXPECT_TRUE(!fs::exists(to) || fs::exists(to + "/config.json")) << p.output();
      fs::remove_all(to);
    }
  }
  for (const char* call : {"open", "write", "fsync", "rename"}) EXPECT_NE(calls.find(std::string("no space at ") + call), calls.npos) << calls;
  EXPECT_GT(failures, 8);
}

TEST_F(Launch, AKillAtAnyCallOfAConversionLeavesNoHalfOfIt) {
  const std::string to = at("runs/step-1");
  fs::create_directory(at("runs"));
  int kills = 0, left = 0;
  for (bool killed = true; killed; ++kills) {
    ASSERT_LT(kills, 200);
    Process p(trireme_command(0, {"convert", fixture("torch/gpt2-bin").string(), to},
                              with_fault({"FAULT=kill", "FAULT_AT=" + std::to_string(kills + 1), "FAULT_DIR=" + at("runs")})));
    const int code = p.wait();
    killed = p.says("fault: ");
    ASSERT_EQ(code, killed ? 128 + SIGKILL : 0) << p.output();
    EXPECT_TRUE(!fs::exists(to) || fs::exists(to + "/config.json")) << p.output();
    if (killed && fs::exists(to + ".tmp")) {
      ++left;
      expect_says(expect_ends(0, {"convert", fixture("torch/gpt2-bin").string(), to}, 2), "left of a conversion that was broken off");
    }
    if (killed) {
      fs::remove_all(to);
      fs::remove_all(to + ".tmp");
    }
  }
  EXPECT_GT(kills, 8);
  EXPECT_GT(left, 6);
}

TEST_F(Launch, WhatCannotBeConvertedIsAUsersError) {
  const auto refused = [&](const Words& words, const std::string& why) {
    Words all = {"convert"};
    all.insert(all.end(), words.begin(), words.end());
    const std::string output = expect_ends(0, all, 2);
    expect_says(output, why);
    EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 1) << output;
  };
  fs::create_directory(at("evil"));
  std::ofstream(at("evil/config.json")) << "{}";
  fs::copy_file(fixture("torch/refused/command.bin"), at("evil/pytorch_model.bin"));
  refused({at("evil"), at("x")}, "pytorch_model.bin: command/data.pkl: offset 13: names posix.system, which is not among");
  refused({at("evil")}, "convert: say FROM and TO; see trireme convert --help");
  refused({at("evil"), at("x"), "--dtype", "f64"}, "--dtype=f64: use f32, bf16 or f16");
  refused({at("evil"), at("x"), "--names", "newer"}, "--names=newer: use new or old");
  refused({at("evil"), at("x"), "--shard-mb", "0"}, "--shard-mb=0: wants an integer from 1");
  refused({at("evil"), at("x"), "--dtpye", "f32"}, "did you mean --dtype?");
  refused({at("none"), at("x")}, "/none: is not there");
  expect_says(expect_ends(0, {"convert", "--help"}, 0), "trireme convert runs/mine/latest mine-bf16/ --dtype bf16");
}

}  // namespace
}  // namespace trireme::testing
