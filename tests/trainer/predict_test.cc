#include "trainer/predict.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/files.h"
#include "comm/threads.h"
#include "model/cost.h"
#include "parallel/simulator.h"
#include "tests/test_data.h"
#include "trainer/model_section.h"
#include "trainer/planner.h"

namespace trireme {
namespace {

// Round numbers, so that what they give can be counted by hand.
MachineRates round_rates() {
  MachineRates r;
  r.threads = 2;
  r.ranks_per_host = 4;
  r.gemm_f32 = 1e11;
  r.gemm_bf16 = 4e11;
  r.attention = 5e10;
  r.copy = 1e10;
  r.read = 2e10;
  GroupRates within{4, {{1e-5, 2e9}, {2e-5, 4e9}, {3e-5, 5e9}, {4e-5, 8e9}}};
  r.within_host = within;
  GroupRates between{2, {{1e-4, 1e9}, {2e-4, 1e9}, {3e-4, 1e9}, {4e-4, 1e9}}};
  r.between_hosts = between;
  return r;
}

RunConfig config_of(const std::vector<std::string>& overrides) {
  return parse_run_config(
      "model: {model_type: gpt2, vocab_size: 1000, n_embd: 64, n_layer: 8, n_head: 4, n_positions: 128}\n"
      "data: {train: a, sequence_length: 100}\n"
      "train: {steps: 10, global_batch: 16, micro_batch: 2}\n",
      "test", overrides);
}

struct Case {
  RunConfig config;
  ModelConfig model;
  RunPlan plan;
  Prediction prediction;
};
Case predicted(int world, const std::vector<std::string>& overrides, int ranks_per_host = 4) {
  Case c;
  c.config = config_of(overrides);
  c.model = load_model_config(c.config);
  c.plan = validate(c.config, c.model, {world, std::nullopt});
  c.prediction = predict(c.config, c.model, c.plan, round_rates(), ranks_per_host);
  return c;
}

void expect_close(double got, double want) { EXPECT_NEAR(got, want, 1e-9 * std::abs(want) + 1e-15); }

TEST(CollectiveSeconds, FollowsItsFormulaAndTheFitInvertsIt) {
  const CallRate rate{1e-5, 2e9};
  EXPECT_EQ(collective_seconds(CollectiveKind::kAllReduce, rate, 1, 1e6), 0);
  expect_close(collective_seconds(CollectiveKind::kAllReduce, rate, 2, 1e6), 2e-5 + 1e6 / 2e9);
  expect_close(collective_seconds(CollectiveKind::kAllReduce, rate, 5, 1e6), 6e-5 + 1.6 * 1e6 / 2e9);
  expect_close(collective_seconds(CollectiveKind::kReduceScatter, rate, 8, 1e6), 3e-5 + 0.875 * 1e6 / 2e9);
  expect_close(collective_seconds(CollectiveKind::kMessage, rate, 8, 1e6), 1e-5 + 1e6 / 2e9);
  for (CollectiveKind kind : kCollectiveKinds)
    for (int p : {2, 3, 8}) {
      const CallRate fit = fit_call_rate(kind, p, 1024, collective_seconds(kind, rate, p, 1024), 1e7,
                                         collective_seconds(kind, rate, p, 1e7));
      EXPECT_NEAR(fit.latency_s, 1e-5, 1e-12);
      EXPECT_NEAR(fit.bytes_per_s, 2e9, 2);
    }
  // A small call that was disturbed.
  const CallRate disturbed = fit_call_rate(CollectiveKind::kMessage, 2, 1000, 2e-3, 1e6, 1e-3);
  expect_close(disturbed.bytes_per_s, 1e9);
}

TEST(MachineRates, ComeBackFromJsonAndFromTheDoctorsFile) {
  const testing::TempDir dir;
  MachineRates rates = round_rates();
  const boost::json::value value(to_json(rates));
  EXPECT_EQ(machine_rates_from_json(JsonObject(value, "t")), rates);
  write_file_atomically(dir.path() / "doctor.json", to_json(boost::json::value{{"host", nullptr}, {"rates", value}}));
  EXPECT_EQ(load_machine_rates(dir.path() / "doctor.json"), rates);
  rates.gemm_bf16x3 = 2e11, rates.gemm_rounded = 3e11, rates.gemm_rounded_f16 = 1.5e11;  // of a machine that can
  write_file_atomically(dir.path() / "amx.json", to_json(boost::json::value(to_json(rates))));
  EXPECT_EQ(load_machine_rates(dir.path() / "amx.json"), rates);
  rates.between_hosts.reset();
  write_file_atomically(dir.path() / "rates.json", to_json(boost::json::value(to_json(rates))));
  EXPECT_EQ(load_machine_rates(dir.path() / "rates.json"), rates);
  for (const char* key : {"gemm_f32_flops", "copy_bytes_per_s", "threads"}) {
    boost::json::object broken = to_json(rates);
    broken[key] = -1;
    const boost::json::value v(broken);
    EXPECT_THROW(machine_rates_from_json(JsonObject(v, "t")), FileError) << key;
  }
}

TEST(MachineRates, AreMeasuredBetweenRanksAlikeOnAll) {
  run_ranks(2, [](Communicator& world) {
    const MachineRates rates = measure_machine_rates(world, 1);
    ASSERT_TRUE(rates.within_host.has_value());
    EXPECT_FALSE(rates.between_hosts.has_value());
    EXPECT_EQ(rates.ranks_per_host, 2);
    for (double rate : {rates.gemm_f32, rates.gemm_bf16, rates.attention, rates.copy, rates.read}) EXPECT_GT(rate, 1e7);
    const std::string mine = to_json(boost::json::value(to_json(rates)));
    EXPECT_EQ(world.broadcast_string(mine, 0), mine);
  });
}

TEST(Predict, TakesTheRateOfTheProductsPrecision) {
  const RunConfig f32 = config_of({}), x3 = config_of({"run.matmul_precision=bf16x3"});
  const ModelConfig model = load_model_config(f32);
  const RunPlan plan = validate(f32, model, {1, std::nullopt});
  MachineRates rates = round_rates();
  try {
    predict(x3, model, plan, rates, 4);
    ADD_FAILURE();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "the machine's rates have no gemm_bf16x3_flops, which run.matmul_precision=bf16x3 needs; measure "
                           "them by trireme doctor --json on a machine with AMX, or use run.matmul_precision=f32");
  }
  rates.gemm_bf16x3 = 2e11, rates.gemm_rounded = 3e11, rates.gemm_rounded_f16 = 1.5e11;
  EXPECT_EQ(rates.gemm(DType::kF32, MatmulPrecision::kF32), 1e11);
  EXPECT_EQ(rates.gemm(DType::kBF16, MatmulPrecision::kF32), 4e11);
  EXPECT_EQ(rates.gemm(DType::kF32, MatmulPrecision::kBf16), 3e11);
  EXPECT_EQ(rates.gemm(DType::kF32, MatmulPrecision::kF16), 1.5e11);
  const double slow = predict(f32, model, plan, rates, 4).step.total_s, fast = predict(x3, model, plan, rates, 4).step.total_s;
  MachineRates of_x3 = rates;
  of_x3.gemm_f32 = 2e11;
  EXPECT_GT(slow, fast);
  EXPECT_EQ(predict(f32, model, plan, of_x3, 4).step.total_s, fast);
  EXPECT_NE(prediction_formulas(x3, rates).find("over 200 GFLOP/s"), std::string::npos);
}

// One rank: nothing but products, attention, row-wise work and the update.
TEST(Predict, OneRankIsTheSumOfItsWork) {
  const Case c = predicted(1, {});
  const double t = 200, d = 64, f = 256, v = 1000, layers = 8, micro = 8;
  const double attention = 4 * t * d * 50.5 / 5e10, rows = 4 * t * (9 * d + 2 * f) / 1e10;
  // Three products each, and their operands: twice as they are, once with the f32 gradient read and written.
  const auto products = [&](double in, double out) {
    return 6 * t * in * out / 1e11 + (12 * t * (in + out) + 16 * in * out) / 1e10;
  };
  const double layer = products(d, 3 * d) + products(d, d) + 2 * products(d, f) + 3.5 * attention + 3 * rows,
               embedding = 4 * t * d * 4 / 1e10, head = products(d, v) + 16 * t * v / 1e10;
  expect_close(c.prediction.step.compute_s, micro * (layers * layer + embedding + head));
  const double n = static_cast<double>(count_parameters(c.model).total());
  expect_close(c.prediction.step.optimizer_s, n * 28 / 1e10 + n * 4 / 2e10);
  EXPECT_EQ(c.prediction.step.tensor_s, 0);
  EXPECT_EQ(c.prediction.step.data_s, 0);
  EXPECT_NEAR(c.prediction.step.bubble_s, 0, 1e-12);
  expect_close(c.prediction.step.total_s, c.prediction.step.compute_s + c.prediction.step.optimizer_s);
  expect_close(c.prediction.step.tokens_per_s, 1600 / c.prediction.step.total_s);
  expect_close(c.prediction.step.mfu,
               c.prediction.step.tokens_per_s * training_flops_per_token(c.model, 100) / 1e11);
  expect_close(c.prediction.memory.weights, n * 4);
  expect_close(c.prediction.memory.gradients, n * 4);
  expect_close(c.prediction.memory.optimizer, n * 8);
}

TEST(Predict, TensorRanksShareTheProductsAndAddTheirSums) {
  const Case one = predicted(1, {}), two = predicted(2, {"parallel.tensor=2"});
  EXPECT_LT(two.prediction.step.compute_s, one.prediction.step.compute_s);
  EXPECT_GT(two.prediction.step.compute_s, one.prediction.step.compute_s / 2);  // norms are not shared
  const double t = 200, d = 64, f = 256, e = 4, sum = 2e-5 + t * d * e / 2e9;
  double layer = 2 * sum;
  for (double out : {3 * d / 2, f / 2})
    layer += std::max(0.0, sum - 2 * t * d * out / 1e11 - (e * t * (d + out) + 8 * d * out) / 1e10);
  const double loss = (2e-5 + 4 * t / 2e9) + (2e-5 + 8 * t / 2e9) + sum;
  expect_close(two.prediction.step.tensor_s, 8 * (8 * layer + sum + loss));
}

TEST(Predict, BubbleIsThatOfTheSimulatedSchedule) {
  for (const char* schedule : {"1f1b", "gpipe", "zb-h1", "interleaved"}) {
    SCOPED_TRACE(schedule);
    std::vector<std::string> overrides = {"parallel.pipeline=4", text("parallel.schedule=", schedule), "train.micro_batch=1",
                                          "train.global_batch=64"};
    if (schedule == std::string("interleaved")) overrides.push_back("parallel.chunks=2");
    const Case c = predicted(4, overrides);
    const StepPrediction& s = c.prediction.step;
    EXPECT_GT(s.bubble_s, 0);
    expect_close(s.total_s, s.compute_s + s.tensor_s + s.bubble_s + s.data_s + s.optimizer_s);
    // Twice the micro-batches: twice the work, and the bubble stays.
    overrides[3] = "train.global_batch=128";
    const Case twice = predicted(4, overrides);
    expect_close(twice.prediction.step.compute_s, 2 * s.compute_s);
    EXPECT_NEAR(twice.prediction.step.bubble_s, s.bubble_s, 1e-6 * s.compute_s);
  }
  const double plain = predicted(4, {"parallel.pipeline=4"}).prediction.step.bubble_s;
  EXPECT_LT(predicted(4, {"parallel.pipeline=4", "parallel.schedule=zb-h1"}).prediction.step.bubble_s, plain);
  EXPECT_LT(predicted(4, {"parallel.pipeline=4", "parallel.schedule=interleaved", "parallel.chunks=2"}).prediction.step.bubble_s,
            plain);
}

TEST(Predict, DataRanksReduceTheirGradientsBesideTheLastBackward) {
  const Case c = predicted(4, {});
  const double n = static_cast<double>(count_parameters(c.model).total());
  // One bucket: nothing hides it.
  expect_close(c.prediction.step.data_s, 4e-5 + 1.5 * n * 4 / 2e9);
  const Case zero1 = predicted(4, {"parallel.zero=1"});
  expect_close(zero1.prediction.step.data_s, 6e-5 + 0.75 * n * 4 / 5e9 + 4e-5 + 0.75 * n * 4 / 4e9);
  expect_close(zero1.prediction.step.optimizer_s, c.prediction.step.optimizer_s / 4);
  expect_close(zero1.prediction.memory.optimizer, c.prediction.memory.optimizer / 4);
  // ZeRO-2 reduces in each of the two micro-batches.
  const Case zero2 = predicted(4, {"parallel.zero=2"});
  expect_close(zero2.prediction.step.data_s, 2 * (6e-5 + 0.75 * n * 4 / 5e9) + 4e-5 + 0.75 * n * 4 / 4e9);
  expect_close(zero2.prediction.memory.gradients, c.prediction.memory.gradients / 4);
  // Beyond a host, at the rates between hosts; the two tensor groups of a host share its link.
  expect_close(predicted(4, {}, 2).prediction.step.data_s, 4e-4 + 1.5 * n * 4 / 1e9);
  const Case split = predicted(4, {"parallel.tensor=2"}, 2);
  const double shard = (static_cast<double>(count_parameters(split.model).total())) / 2;
  expect_close(split.prediction.step.data_s, 2e-4 + 2 * shard * 4 / 1e9);
}

TEST(Predict, WithoutMeasuredCollectivesOnlyOneRankIsPredicted) {
  MachineRates rates = round_rates();
  rates.within_host.reset();
  rates.between_hosts.reset();
  const Case one = predicted(1, {});
  EXPECT_NO_THROW(predict(one.config, one.model, one.plan, rates, 4));
  const Case two = predicted(2, {"parallel.tensor=2"});
  EXPECT_THROW(predict(two.config, two.model, two.plan, rates, 4), ConfigError);
}

TEST(Planner, FindsTheFastestLayoutThatFitsTheMemory) {
  const RunConfig config = config_of({});
  const ModelConfig model = load_model_config(config);
  const PlannerOutcome free = plan_layouts(config, model, round_rates(), {4, 4, 0, 5});
  ASSERT_EQ(free.best.size(), 5u);
  EXPECT_EQ(free.num_over_memory, 0);
  for (size_t i = 1; i < free.best.size(); ++i)
    EXPECT_LE(free.best[i - 1].prediction.step.total_s, free.best[i].prediction.step.total_s * 1.011);
  // Nothing that can be named by hand is faster.
  for (const auto& overrides : std::vector<std::vector<std::string>>{
           {}, {"parallel.tensor=4"}, {"parallel.pipeline=4"}, {"parallel.tensor=2", "parallel.zero=1"},
           {"parallel.pipeline=2", "parallel.schedule=zb-h1", "train.micro_batch=4"}, {"train.micro_batch=4"}})
    EXPECT_GE(predicted(4, overrides).prediction.step.total_s, free.best[0].prediction.step.total_s * 0.99);
  const double limit = free.best[0].prediction.memory.total() * 0.6;
  const PlannerOutcome tight = plan_layouts(config, model, round_rates(), {4, 4, limit, 100});
  EXPECT_GT(tight.num_over_memory, 0);
  EXPECT_EQ(tight.num_valid, free.num_valid);
  for (const PlannedLayout& l : tight.best) EXPECT_LE(l.prediction.memory.total(), limit);
  // What it says reads as overrides of the same layout.
  const PlannedLayout& best = free.best[0];
  std::vector<std::string> overrides;
  std::istringstream words(best.overrides());
  for (std::string word; words >> word;) overrides.push_back(word);
  expect_close(predicted(4, overrides).prediction.step.total_s, best.prediction.step.total_s);
  EXPECT_TRUE(plan_layouts(config, model, round_rates(), {4, 4, 1, 5}).best.empty());
}

}  // namespace
}  // namespace trireme
