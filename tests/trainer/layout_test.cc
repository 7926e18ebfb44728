// The first promise: the layout is an execution detail. Every layout below gives the losses, gradients and
// weights of the single process, dropout on, after 20 steps, up to the rounding of f32 sums.
#include <gtest/gtest.h>

#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr int kSteps = 20;
constexpr double kTolerance = 2e-5;

const RunOutcome& single_process(bool llama) {
  static const RunOutcome gpt2 = run_threads(tiny_gpt2(0.1), {.micro_batch = 8}, kSteps);
  static const RunOutcome other = run_threads(tiny_llama(), {.micro_batch = 8}, kSteps);
  return llama ? other : gpt2;
}

struct Case {
  bool llama;
  Layout layout;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << (c.llama ? "llama " : "gpt2 ") << describe(c.layout);
}

class LayoutInvariance : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutInvariance, EqualsTheSingleProcess) {
  const auto& [llama, layout] = GetParam();
  const RunOutcome got = run_threads(llama ? tiny_llama() : tiny_gpt2(0.1), layout, kSteps);
  expect_same_run(got, single_process(llama), kTolerance, describe(layout));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (bool llama : {false, true}) {
    auto add = [&](Layout l) { all.push_back({llama, l}); };
    for (int mb : {1, 2, 4}) add({.micro_batch = mb});
    for (Recompute r : {Recompute::kSelective, Recompute::kFull}) add({.micro_batch = 2, .recompute = r});
    for (int tp : {2, 4})
      for (bool sequence : {false, true})
        add({.tp = tp, .sequence = sequence, .micro_batch = 2});
    for (int dp : {2, 4, 8})
      for (int zero : {0, 1, 2}) add({.dp = dp, .zero = zero, .micro_batch = 1});
    for (int pp : {2, 3, 4, 6})
      for (const char* schedule : {"gpipe", "1f1b", "zb-h1"})
        add({.pp = pp, .schedule = schedule, .micro_batch = 1});
    for (auto [pp, chunks] : {std::pair(2, 2), std::pair(2, 3), std::pair(3, 2), std::pair(1, 2)})
      add({.pp = pp, .schedule = "interleaved", .chunks = chunks, .micro_batch = 2});
    add({.pp = 2, .layers_per_stage = {1, 5}, .micro_batch = 2});
    // Everything at once, 4 and 8 ranks.
    add({.dp = 2, .tp = 2, .micro_batch = 2});
    add({.dp = 2, .tp = 2, .sequence = true, .zero = 1, .micro_batch = 1});
    add({.tp = 2, .pp = 2, .sequence = true, .micro_batch = 2});
    add({.dp = 2, .pp = 2, .schedule = "gpipe", .zero = 2, .micro_batch = 1});
    for (int zero : {0, 1, 2})
      for (bool sequence : {false, true})
        for (const char* schedule : {"gpipe", "1f1b", "zb-h1"})
          add({.dp = 2,
               .tp = 2,
               .pp = 2,
               .schedule = schedule,
               .sequence = sequence,
               .zero = zero,
               .micro_batch = 1});
    for (Recompute r : {Recompute::kSelective, Recompute::kFull})
      add({.dp = 2, .tp = 2, .pp = 2, .schedule = "interleaved", .chunks = 3, .sequence = true, .zero = 2,
           .micro_batch = 2, .recompute = r});
    add({.tp = 4, .pp = 2, .sequence = true, .micro_batch = 4});
    add({.dp = 4, .pp = 2, .zero = 1, .micro_batch = 1});
  }
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  std::string name = (info.param.llama ? "llama_" : "gpt2_") + describe(info.param.layout);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

// The same in bf16 with f32 masters, where activations, and sums over ranks, are rounded to 8 bits: against
// the single process in bf16. Rounding that differs lets trainings drift apart, so gradients are compared
// after one step, where they differ by rounding alone, and losses all along.
class LayoutInvarianceInBf16 : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutInvarianceInBf16, EqualsTheSingleProcessUpToRounding) {
  const auto& [llama, layout] = GetParam();
  const ModelConfig config = llama ? tiny_llama() : tiny_gpt2(0.1);
  const Layout single{.micro_batch = 8, .dtype = DType::kBF16};
  const RunOutcome first = run_threads(config, layout, 1), want_first = run_threads(config, single, 1);
  EXPECT_NEAR(first.losses[0], want_first.losses[0], 0x1p-10 * want_first.losses[0]);
  ASSERT_EQ(first.gradients.size(), want_first.gradients.size());
  for (const auto& [tensor, values] : want_first.gradients)
    EXPECT_LE(relative_error(first.gradients.at(tensor), values), 0x1p-4) << tensor;  // 16 roundings
  const RunOutcome got = run_threads(config, layout, kSteps), want = run_threads(config, single, kSteps);
  for (int i = 0; i < kSteps; ++i)
    EXPECT_NEAR(got.losses[i], want.losses[i], 0x1p-9 * want.losses[i]) << "step " << i + 1;
  EXPECT_NEAR(got.evaluation, want.evaluation, 0x1p-9 * want.evaluation);
  EXPECT_LT(want.losses.back(), 0.95 * want.losses[0]);  // it learns
}

std::vector<Case> bf16_cases() {
  std::vector<Case> all;
  for (bool llama : {false, true})
    for (Layout layout :
         {Layout{.micro_batch = 1}, Layout{.tp = 2, .sequence = true, .micro_batch = 2},
          Layout{.dp = 2, .zero = 2, .micro_batch = 2}, Layout{.dp = 4, .zero = 1, .micro_batch = 1},
          Layout{.pp = 3, .schedule = "zb-h1", .micro_batch = 1},
          Layout{.dp = 2, .tp = 2, .pp = 2, .sequence = true, .zero = 1, .micro_batch = 1}}) {
      layout.dtype = DType::kBF16;
      all.push_back({llama, layout});
    }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, LayoutInvarianceInBf16, ::testing::ValuesIn(bf16_cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(All, LayoutInvariance, ::testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace trireme::testing
