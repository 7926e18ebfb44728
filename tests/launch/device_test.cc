// The program and CUDA devices, as whole jobs: the program itself where there is none, and one whose device the CPU stands
// for (tests/cuda_emulation).
#include <cmath>
#include <fstream>

#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

const Words kNoDevice = {"env", "CUDA_VISIBLE_DEVICES="};

int times_in(const std::string& output, const std::string& part) {
  int n = 0;
  for (size_t at = 0; (at = output.find(part, at)) != output.npos; at += part.size()) ++n;
  return n;
}

TEST_F(Launch, ADeviceThatIsNotThereIsRefusedByAllRanksInOneLine) {
  const std::string output = expect_ends(2, training({"run.device=cuda"}), 2, kNoDevice);
  EXPECT_EQ(times_in(output, "run.device=cuda: "), 1) << output;
  expect_says(output, "; use run.device=cpu");
  EXPECT_FALSE(std::filesystem::exists(at("run")));
  const std::string run = expect_ends(2, training({"train.steps=2"}), 0, kNoDevice);
  expect_says(run, "device of rank 0: cpu (");
  const Words words = {"generate", "--model", at("run/latest"), "--prompt", "The", "--max-tokens", "4"};
  const auto with = [&](const char* device) {
    Words all = words;
    all.insert(all.end(), {"--device", device});
    return all;
  };
  expect_says(expect_ends(2, with("cuda"), 2, kNoDevice), "--device=cuda: ");
  expect_says(expect_ends(2, with("gpu"), 2, kNoDevice), "--device=gpu; use auto, cpu or cuda");
  expect_ends(2, with("cpu"), 0, kNoDevice);
  expect_ends(2, words, 0, kNoDevice);
  expect_says(expect_ends(2, training({"run.device=cuda", "--dry-run"}), 2, kNoDevice), "run.device=cuda: ");
}

#ifdef TRIREME_EMULATED_PROGRAM

class EmulatedLaunch : public Launch {
 protected:
  std::string expect_ends_there(int ranks, const Words& words, int code) const {
    Words command = trireme_command(ranks, words);
    for (std::string& word : command)
      if (word == TRIREME_PROGRAM) word = TRIREME_EMULATED_PROGRAM;
    Process p(command);
    EXPECT_EQ(p.wait(), code) << p.output();
    return p.output();
  }
};

TEST_F(EmulatedLaunch, ARunIsTrainedThereResumedOnTheCpuAndWritesTheCpusText) {
  const Words small = {"train.steps=4", "train.global_batch=2", "model.n_layer=2", "checkpoint.every_steps=2"};
  const auto run = [&](const std::string& name, const std::string& steps) {
    Words words = small;
    words.insert(words.end(), {"run.dir=" + at(name), steps});
    return training(words);
  };
  expect_ends(0, run("cpu", "train.steps=4"), 0);
  const std::string output = expect_ends_there(0, run("cuda", "train.steps=2"), 0);  // auto: it has a device
  expect_says(output, "device of rank 0: cuda:0 (emulated");
  expect_says(expect_ends(0, run("cuda", "train.steps=4"), 0), "step-2 at step 2");
  const auto want = losses("cpu"), got = losses("cuda");
  ASSERT_EQ(got.size(), 4u);
  for (const auto& [step, loss] : want) EXPECT_NEAR(std::stod(got.at(step)), std::stod(loss), 1e-4) << step;

  const Words words = {"generate", "--model", at("cpu/latest"), "--prompt", "The", "--max-tokens", "5", "--temperature", "0",
                       "--ids"};
  const auto first_line = [](const std::string& s) { return s.substr(0, s.find('\n')); };
  Words there = words;
  there.insert(there.end(), {"--device", "cuda"});
  EXPECT_EQ(first_line(expect_ends_there(0, there, 0)), first_line(expect_ends(0, words, 0)));
}

TEST_F(EmulatedLaunch, RanksThatAreProcessesTrainThere) {
  const Words small = {"train.steps=3", "train.global_batch=2", "model.n_layer=2"};
  const auto run = [&](const std::string& name, const Words& more) {
    Words words = small;
    words.insert(words.end(), more.begin(), more.end());
    words.push_back("run.dir=" + at(name));
    return training(words);
  };
  expect_ends(0, run("cpu", {}), 0);
  const auto want = losses("cpu");
  for (const Words& layout : {Words{"parallel.zero=1"}, Words{"parallel.tensor=2"}, Words{"parallel.pipeline=2"}}) {
    const std::string output = expect_ends_there(2, run(layout[0], layout), 0);
    expect_says(output, "device of rank 0: cuda:0 (emulated");
    const auto got = losses(layout[0]);
    ASSERT_EQ(got.size(), 3u) << output;
    for (const auto& [step, loss] : want) EXPECT_NEAR(std::stod(got.at(step)), std::stod(loss), 1e-4) << layout[0] << " " << step;
  }
  // More ranks than the two devices there are.
  const std::string output = expect_ends_there(3, run("three", {"train.global_batch=3", "train.steps=1"}), 0);
  EXPECT_EQ(times_in(output, "3 ranks share 2 CUDA devices"), 1) << output;
}

TEST_F(EmulatedLaunch, ADryRunNamesTheDevicesMemory) {
  std::ofstream(at("rates.json")) << R"({"threads": 1, "ranks_per_host": 1, "gemm_f32_flops": 1e13, "gemm_bf16_flops": 1e14,
    "attention_flops": 1e13, "copy_bytes_per_s": 1e12, "read_bytes_per_s": 1e12})";
  const std::string output = expect_ends_there(0, training({"--dry-run", "--rates", at("rates.json")}), 0);
  expect_says(output, "device of a rank: cuda:0 (emulated, 16.0 GiB)");
  expect_says(output, "need more than 16384.0 MiB a rank");
  // Where both are given nothing is asked of this host: a laptop can predict for a cluster.
  const std::string elsewhere = expect_ends(
      0, training({"run.device=cuda", "--dry-run", "--rates", at("rates.json"), "--memory-gb", "80"}), 0, kNoDevice);
  expect_says(elsewhere, "need more than 81920.0 MiB a rank");
}

#endif

}  // namespace
}  // namespace trireme::testing
