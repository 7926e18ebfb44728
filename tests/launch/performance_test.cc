// What users see of speed, as whole jobs: profiles, the doctor, predictions, measured choices.
#include <fstream>

#include "base/files.h"
#include "base/json.h"
#include "tensor/cores.h"
#include "tensor/gemm.h"
#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

TEST_F(Launch, AProfileOfTwoRanksIsWrittenAndTheLossesStayTheSame) {
  expect_ends(2, training({"parallel.pipeline=2"}), 0);
  const std::string output = expect_ends(2, training({"parallel.pipeline=2", "run.dir=" + at("profiled"), "profile.steps=2",
                                                      "profile.start_step=4"}), 0);
  EXPECT_EQ(losses("profiled"), losses("run"));
  for (const char* part : {"time of a rank and a step: mean over 2 ranks, 2 steps", "wait for recv pp", "x floor"})
    expect_says(output, part);
  const std::string where = at("profiled/profile/timeline.json");
  const boost::json::value trace = parse_json(read_text_file(where, 64 << 20), where);
  std::map<int64_t, int> steps, ranks;
  for (const boost::json::value& e : trace.as_array())
    if (e.at("ph") == "X") {
      ++ranks[e.at("pid").to_number<int64_t>()];
      ++steps[e.at("args").at("step").to_number<int64_t>()];
    }
  EXPECT_EQ(ranks.size(), 2u);
  EXPECT_EQ(steps.size(), 2u);
  EXPECT_TRUE(steps.contains(4) && steps.contains(5));
  for (const char* name : {"table.txt", "step.svg", "pipeline.svg"}) EXPECT_TRUE(fs::exists(at("profiled/profile/") + name));
  expect_says(expect_ends(0, training({"profile.start_step=4"}), 2), "profile.steps=0, which profiles nothing");
}

TEST_F(Launch, TheDoctorsRatesPredictARun) {
  // mpirun's own warnings would stand beside the JSON.
  const std::string output = expect_ends(0, {"doctor", "--json", "--threads", "1"}, 0);
  const boost::json::value doctor = parse_json(output, "doctor");
  EXPECT_GT(doctor.at("rates").at("gemm_f32_flops").to_number<double>(), 0);
  EXPECT_TRUE(doctor.at("findings").is_array());
  std::ofstream(at("rates.json")) << output;
  const std::string one = expect_ends(0, training({"--dry-run", "--rates", at("rates.json")}), 0);
  for (const char* part : {"memory of the largest rank", "rates of " , "products: 2 t in out", "parallel.tensor=1 parallel.pipeline=1"})
    expect_says(one, part);
  expect_says(expect_ends(0, training({"--dry-run", "--rates", at("rates.json"), "--ranks", "2"}), 2),
              "needs measured collectives; give --rates FILE");
  const std::string several = expect_ends(0, training({"--dry-run", "--ranks", "1,2,3"}), 0);
  for (const char* part : {"measured now", "layouts for 2 ranks", "train.global_batch=4 is not a multiple of"})
    expect_says(several, part);
  expect_says(expect_ends(0, training({"--dry-run", "--ranks", "2,x"}), 2), "--ranks=2,x: wants an integer from 1 to");
  expect_says(expect_ends(0, training({"--memory-gb", "3"}), 2), "--memory-gb goes with --dry-run");
  const std::string text = expect_ends(2, {"doctor"}, 0);
  for (const char* part : {"collectives within a host, 2 ranks", "rank 1", "copy"}) expect_says(text, part);
}

TEST_F(Launch, ARunKeepsItsMeasuredChoicesWithItsCheckpoints) {
  const auto text_of = [](const std::string& path) { return read_text_file(path, 1 << 20); };
  expect_says(expect_ends(0, {"doctor", "--tune", at("tuning.txt"), "--config", at("run.yaml"), "--threads", "1"}, 0),
              "run.tuning=");
  // Choices that no measurement would make here, so that they differ from the rules.
  std::ofstream(at("other.txt")) << "trireme tuning 1\n[products]\ntrireme gemm table 1\nrules f32_only\n"
                                    "nt f32 f32 64 128 32 1 own\n";
  expect_ends(0, training({"run.tuning=" + at("tuning.txt"), "train.steps=5"}), 0);
  const std::string kept = text_of(at("run/latest/tuning.txt"));
  EXPECT_EQ(kept, text_of(at("run/tuning.txt")));
  EXPECT_EQ(kept.rfind("trireme tuning 1\n[products]\n", 0), 0u);
  // Goes on with the checkpoint's without being told, and says so if told another.
  fs::remove(at("tuning.txt"));
  const std::string on = expect_ends(0, training({"train.steps=10"}), 0);
  EXPECT_EQ(on.find("differ in their last bits"), on.npos);
  EXPECT_EQ(text_of(at("run/latest/tuning.txt")), kept);
  expect_says(expect_ends(0, training({"run.tuning=" + at("other.txt")}), 0), "differ in their last bits");
  EXPECT_NE(text_of(at("run/latest/tuning.txt")), kept);
  std::ofstream(at("broken.txt")) << "trireme tuning 1\n[products]\nnothing\n";
  expect_says(expect_ends(2, training({"run.tuning=" + at("broken.txt"), "run.dir=" + at("new")}), 2), "broken.txt, [products]: line 1");
  expect_says(expect_ends(0, training({"run.tuning=/absent"}), 2), "run.tuning=/absent is not there");
}

TEST_F(Launch, CollectivesAreMeasuredInTheGroupsOfALayoutAndTheirWaysKeptWithARun) {
  const auto text_of = [](const std::string& path) { return read_text_file(path, 1 << 20); };
  const std::string said = expect_ends(
      2, {"doctor", "--tune=" + at("tuning.txt"), "--config", at("run.yaml"), "--threads", "1", "parallel.tensor=2"}, 0);
  for (const char* part : {"all_reduce f32, 1 host of 2 ranks:", "reduce_scatter bf16, 1 host of 2 ranks:", "in_place from"})
    expect_says(said, part);
  const std::string measured = text_of(at("tuning.txt"));
  expect_says(measured, "\n[collectives]\ntrireme collective table 1\n");
  expect_says(measured, "\nall_reduce f32 1 2 4096 ");
  expect_ends(2, training({"parallel.tensor=2", "train.steps=5", "run.tuning=" + at("tuning.txt")}), 0);
  EXPECT_EQ(text_of(at("run/latest/tuning.txt")), measured);
  // Other ways for collectives alone leave the bits as they are.
  std::ofstream(at("other.txt")) << measured.substr(0, measured.find("[collectives]"))
                                 << "[collectives]\ntrireme collective table 1\n# call dtype hosts ranks bytes way\n"
                                    "all_reduce f32 1 2 64 past_caches\n";
  const std::string on =
      expect_ends(2, training({"parallel.tensor=2", "train.steps=10", "run.tuning=" + at("other.txt")}), 0);
  EXPECT_EQ(on.find("differ in their last bits"), on.npos);
  EXPECT_EQ(text_of(at("run/latest/tuning.txt")), text_of(at("other.txt")));
  expect_says(expect_ends(2, {"doctor", "--tune=" + at("tuning.txt"), "--config", at("run.yaml"), "parallel.tensor=4"}, 2),
              "the job has 2");
  expect_says(expect_ends(2, {"doctor", "--tune", at("tuning.txt")}, 2), "mpirun has an option --tune of its own");
}

TEST_F(Launch, ThreadsArePinnedWhereCoresSufficeAndElseTheRunSaysWhyNot) {
  const std::vector<int> cores = allowed_cores();
  const std::string first = std::to_string(cores[0]);
  const Words on_one_core = {"taskset", "-c", first};
  const std::string plain = expect_ends(2, training({"run.pin=off", "train.steps=4", "run.dir=" + at("plain")}), 0);
  EXPECT_EQ(plain.find("pinned"), plain.npos);
  if (cores.size() >= 2)
    expect_says(expect_ends(2, training({"run.pin=on", "train.steps=4"}), 0), "threads of rank 0 pinned to cores " + first);
  else
    expect_says(expect_ends(2, training({"run.pin=on", "train.steps=4"}), 0), "rank 0: 2 ranks share 1 core");
  EXPECT_EQ(losses("run"), losses("plain"));
  // More ranks or threads than the cores that are left to them.
  expect_says(expect_ends(2, training({"run.pin=on", "train.steps=2", "run.dir=" + at("crowded")}), 0, on_one_core),
              "run.pin=on, but the threads of 2 of 2 ranks are not pinned; rank 0: 2 ranks share 1 core");
  expect_says(expect_ends(0, training({"run.pin=on", "train.steps=2", "run.threads=2", "run.dir=" + at("narrow")}), 0,
                          on_one_core),
              "run.pin=on, but the threads of 1 of 1 ranks are not pinned; rank 0: 2 threads have 1 core");
  // Cores that were given to a rank alone, without being asked.
  if (cores.size() >= 2)
    expect_says(expect_ends(0, training({"train.steps=2", "run.dir=" + at("bound")}), 0, on_one_core),
                "threads of rank 0 pinned to cores " + first);
}

TEST_F(Launch, ProductsOfFewerBitsAreRefusedByAllRanksWhereTheProcessorCannot) {
  const std::string message =
      "run.matmul_precision=bf16x3 needs a processor with AMX, which this host has not (or its system withholds it, "
      "or TRIREME_ISA hides it); use run.matmul_precision=f32";
  const std::string output = expect_ends(2, training({"run.matmul_precision=bf16x3"}), 2, {"env", "TRIREME_ISA=avx2"});
  expect_says(output, message);
  EXPECT_EQ(output.find(message), output.rfind(message)) << output;
  expect_says(expect_ends(0, training({"run.matmul_precision=f16"}), 2, {"env", "TRIREME_ISA=avx2"}),
              "run.matmul_precision=f16 needs a processor with AVX512-FP16, which this host has not");
  EXPECT_FALSE(fs::exists(at("run")));
  if (!available(MatmulPrecision::kBf16x3)) return;
  expect_ends(2, training({"run.matmul_precision=bf16x3", "train.steps=5"}), 0);
  expect_ends(0, training({"run.dir=" + at("f32"), "train.steps=5"}), 0);
  EXPECT_NE(losses("run"), losses("f32"));
  expect_says(read_text_file(at("run/run.yaml"), 1 << 20), "matmul_precision: bf16x3");
  // A run may go on with another.
  expect_says(expect_ends(0, training({"train.steps=6"}), 0), "going on from");
}

}  // namespace
}  // namespace trireme::testing
