#include "parallel/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/parallel/schedule_shapes.h"

namespace trireme {
namespace {

using testing::for_every_shape;
using testing::message_of;
using testing::shape_text;

int peak_live(const Simulation& s) {
  int most = 0;
  for (const StageSummary& summary : s.summaries) most = std::max(most, summary.peak_live);
  return most;
}

TEST(Simulator, EveryScheduleReachesItsEnd) {
  for (const std::string& name : schedule_names())
    for_every_shape(name, [](const Schedule& s) { ASSERT_NO_THROW(validate(s)) << shape_text(s); });
  for (int stages : {1, 3, 8})
    for (int chunks : {1, 2, 3})
      for (int micro_batches : {1, 5, 8})
        ASSERT_NO_THROW(validate(make_forward_schedule({stages, micro_batches, chunks})));
}

// Order and costs apart from each other: nothing starts before what it needs, and a stage does one thing at a
// time.
TEST(Simulator, NothingStartsBeforeWhatItNeedsHasArrived) {
  const PassCosts costs{1.25, 2.5, 1.5, 0.75, 0.5, {}};
  for (const std::string& name : schedule_names()) {
    const Schedule s = make_schedule(name, {3, 7, testing::takes_chunks(name) ? 2 : 1});
    const Simulation sim = simulate(s, costs);
    for (int stage = 0; stage < 3; ++stage) {
      ASSERT_EQ(sim.stages[stage].size(), s.stages[stage].size());
      for (size_t i = 0; i < s.stages[stage].size(); ++i) {
        const TimedAction& t = sim.stages[stage][i];
        EXPECT_EQ(t.action, s.stages[stage][i]);
        double earliest = i > 0 ? sim.stages[stage][i - 1].end : 0;
        if (const auto need = needs(s.shape, stage, t.action)) {
          for (const TimedAction& from : sim.stages[need->from_stage])
            if (produces(s.shape, need->from_stage, from.action) == need)
              earliest = std::max(earliest, from.end + (need->local() ? 0 : costs.send));
        }
        EXPECT_DOUBLE_EQ(t.start, earliest) << name << " stage " << stage << " action " << i;
      }
    }
  }
}

// Narayanan et al. 2021: the bubble is stages - 1 micro-batches, whatever a forward and a backward cost.
TEST(Simulator, BubbleOfGpipeAndOneFOneBIsStagesMinusOneMicroBatches) {
  for (const char* name : {"gpipe", "1f1b"}) {
    for (const PassCosts& costs :
         {PassCosts{1, 1, 0, 0, 0, {}}, PassCosts{1, 2, 0, 0, 0, {}}, PassCosts{3, 1, 0, 0, 0, {}}}) {
      for_every_shape(name, [&](const Schedule& s) {
        const auto [p, m, chunks] = s.shape;
        const Simulation sim = simulate(s, costs);
        ASSERT_NEAR(sim.bubble_fraction, double(p - 1) / (m + p - 1), 1e-12) << shape_text(s);
        ASSERT_NEAR(sim.total, (m + p - 1) * (costs.forward + costs.backward), 1e-9) << shape_text(s);
        for (const StageSummary& summary : sim.summaries)
          ASSERT_NEAR(summary.bubble_fraction, sim.bubble_fraction, 1e-12);
      });
    }
  }
}

// Narayanan et al. 2021 (arXiv:2104.04473), section 2.2: chunks divide the bubble, where the groups are
// whole.
TEST(Simulator, ChunksDivideTheBubbleOfInterleaved) {
  for_every_shape("interleaved", [](const Schedule& s) {
    const auto [p, m, v] = s.shape;
    const Simulation sim = simulate(s);
    if (m % p == 0) {
      ASSERT_NEAR(sim.bubble_fraction, (p - 1.0) / (v * m + p - 1), 1e-12) << shape_text(s);
    }
    // A chunk costs 1 / v of a stage: an uneven number of micro-batches is never slower than 1f1b.
    ASSERT_LE(sim.total / v, simulate(make_schedule("1f1b", {p, m, 1})).total + 1e-9) << shape_text(s);
  });
}

// Qi et al. 2023: (stages - 1)(forward + input - weight) against 1f1b's (stages - 1)(forward + input +
// weight).
TEST(Simulator, ZbH1HasAThirdOfTheBubbleOfOneFOneB) {
  const PassCosts costs{1, 2, 1, 1, 0, {}};
  for_every_shape("zb-h1", [&](const Schedule& s) {
    const auto [p, m, chunks] = s.shape;
    const double total = simulate(s, costs).total;
    const double one_f_one_b = simulate(make_schedule("1f1b", s.shape), costs).total;
    ASSERT_EQ(one_f_one_b, 3 * (m + p - 1));
    ASSERT_TRUE(p == 1 || total < one_f_one_b) << shape_text(s);
    ASSERT_TRUE(m < p || total == 3 * m + p - 1) << shape_text(s) << ": " << total;
  });
}

TEST(Simulator, GpipeHoldsEveryMicroBatch) {
  for_every_shape("gpipe", [](const Schedule& s) {
    for (const StageSummary& summary : simulate(s).summaries)
      ASSERT_EQ(summary.peak_live, s.shape.micro_batches) << shape_text(s);
  });
}

TEST(Simulator, OneFOneBHoldsAtMostStagesMinusStageMicroBatches) {
  for_every_shape("1f1b", [](const Schedule& s) {
    const Simulation sim = simulate(s);
    for (int stage = 0; stage < s.shape.stages; ++stage)
      ASSERT_EQ(sim.summaries[stage].peak_live, std::min(s.shape.stages - stage, s.shape.micro_batches))
          << shape_text(s);
  });
}

TEST(Simulator, ZbH1HoldsNoMoreThanTheFirstStageOfOneFOneB) {
  for_every_shape("zb-h1", [](const Schedule& s) {
    ASSERT_LE(peak_live(simulate(s)), peak_live(simulate(make_schedule("1f1b", s.shape)))) << shape_text(s);
  });
}

TEST(Simulator, InterleavedHoldsItsWarmUpAndOneMore) {
  for_every_shape("interleaved", [](const Schedule& s) {
    const auto [p, m, v] = s.shape;
    const Simulation sim = simulate(s);
    for (int stage = 0; stage < p; ++stage)
      ASSERT_LE(sim.summaries[stage].peak_live, std::min(2 * (p - stage - 1) + (v - 1) * p + 1, m * v))
          << shape_text(s);
  });
}

TEST(Simulator, EvaluationHoldsOneMicroBatch) {
  const Simulation sim = simulate(make_forward_schedule({4, 6, 1}));
  EXPECT_EQ(sim.total, 4 + 6 - 1);
  EXPECT_EQ(peak_live(sim), 1);
}

TEST(Simulator, LatencyAndSlowVirtualStagesDelayTheStep) {
  const Schedule s = make_schedule("1f1b", {2, 1, 1});
  EXPECT_EQ(simulate(s).total, 6);
  PassCosts costs;
  costs.send = 0.5;
  EXPECT_EQ(simulate(s, costs).total, 7);
  costs.virtual_stage_scale = {1, 3};  // 1 + 0.5 + 3 + 6 + 0.5 + 2
  const Simulation sim = simulate(s, costs);
  EXPECT_EQ(sim.total, 13);
  EXPECT_EQ(sim.summaries[0].busy, 3);
  EXPECT_EQ(sim.summaries[1].busy, 9);
  EXPECT_NEAR(sim.summaries[0].bubble_fraction, 10.0 / 13, 1e-12);
  EXPECT_NEAR(sim.bubble_fraction, 14.0 / 26, 1e-12);
  // Chunks that follow each other on one stage pay no latency.
  costs.virtual_stage_scale.clear();
  EXPECT_EQ(simulate(make_schedule("interleaved", {1, 2, 3}), costs).total, 2 * 3 * 3);
}

TEST(Simulator, CountsMessagesThatWait) {
  // The slow second stage lets the four activations of the first pile up; each is under way until it is taken
  // up.
  PassCosts costs;
  costs.virtual_stage_scale = {1, 10};
  EXPECT_EQ(simulate(make_schedule("gpipe", {2, 4, 1}), costs).peak_messages_in_flight, 3);
  EXPECT_EQ(simulate(make_schedule("gpipe", {2, 4, 1})).peak_messages_in_flight, 0);
  EXPECT_EQ(simulate(make_schedule("interleaved", {1, 4, 2}), {1, 2, 1, 1, 0, {}}).peak_messages_in_flight,
            0);
}

TEST(Simulator, RefusesCostsThatAreNotTimes) {
  const Schedule s = make_schedule("1f1b", {2, 2, 1});
  const auto message = [&](const PassCosts& costs) {
    return message_of<ConfigError>([&] { simulate(s, costs); });
  };
  EXPECT_NE(message({-1, 2, 1, 1, 0, {}}).find("finite and not negative"), std::string::npos);
  EXPECT_NE(message({1, 2, 1, 1, std::numeric_limits<double>::infinity(), {}}).find("finite"),
            std::string::npos);
  EXPECT_EQ(message({1, 2, 1, 1, 0, {1, 2, 3}}),
            "3 cost factors for 2 virtual stages; give one for each, or none");
}

TEST(Simulator, SummarizesMeasuredTimes) {
  // A second stage that starts late, given out of order.
  const std::vector<TimedAction> run = {{1, {Pass::kBackward, 0, 0}, 12.0, 14.0},
                                        {0, {Pass::kForward, 0, 0}, 10.0, 11.0},
                                        {1, {Pass::kForward, 0, 0}, 11.0, 12.0},
                                        {0, {Pass::kBackward, 0, 0}, 14.5, 16.0}};
  const Simulation sim = summarize({2, 1, 1}, run);
  EXPECT_EQ(sim.total, 6);
  EXPECT_EQ(sim.summaries[0].busy, 2.5);
  EXPECT_EQ(sim.summaries[1].busy, 3);
  EXPECT_NEAR(sim.bubble_fraction, 1 - 5.5 / 12, 1e-12);
  EXPECT_EQ(sim.stages[1][0].action.pass, Pass::kForward);
  EXPECT_EQ(sim.summaries[1].peak_live, 1);
  EXPECT_EQ(sim.peak_messages_in_flight, 1);  // the gradient waited from 14 to 14.5
  EXPECT_EQ(summarize({2, 1, 1}, {}).total, 0);
  EXPECT_EQ(message_of<ScheduleError>([] {
              summarize({2, 1, 1}, {{2, {Pass::kForward, 0, 0}, 0, 1}});
            }),
            "timed action forward of micro-batch 0 on stage 2 is outside the schedule's shape");
  EXPECT_EQ(message_of<ScheduleError>([] {
              summarize({2, 1, 1}, {{1, {Pass::kForward, 0, 0}, 3, 1}});
            }),
            "timed action forward of micro-batch 0 on stage 1 runs from 3 to 1");
}

// What a wrong schedule is told.
class CorruptedSchedule : public ::testing::Test {
 protected:
  std::string report() {
    return message_of<ScheduleError>([&] { validate(s_); });
  }
  // stage 0: F0 F1 B0 F2 B1 F3 B2 B3    stage 1: F0 B0 F1 B1 F2 B2 F3 B3
  Schedule s_ = make_schedule("1f1b", {2, 4, 1});
};

TEST_F(CorruptedSchedule, NamesTheMissingAction) {
  s_.stages[1].erase(s_.stages[1].begin() + 5);
  EXPECT_EQ(report(), "schedule 1f1b, stage 1: backward of micro-batch 2 is missing");
}

TEST_F(CorruptedSchedule, NamesTheMissingForward) {
  s_.stages[0].erase(s_.stages[0].begin());
  EXPECT_EQ(report(), "schedule 1f1b, stage 0: forward of micro-batch 0 is missing");
}

TEST_F(CorruptedSchedule, NamesTheActionThatStandsTwice) {
  s_.stages[0].push_back(s_.stages[0][1]);
  EXPECT_EQ(report(), "schedule 1f1b, stage 0: forward of micro-batch 1 stands twice, as action 1 and 8");
}

TEST_F(CorruptedSchedule, NamesTheBackwardBeforeItsForward) {
  std::swap(s_.stages[1][0], s_.stages[1][1]);
  EXPECT_EQ(report(),
            "schedule 1f1b, stage 1: backward of micro-batch 0 is action 0, before its forward, action 1");
}

TEST_F(CorruptedSchedule, NamesTheActionOutOfRange) {
  s_.stages[0][2].micro_batch = 4;
  EXPECT_EQ(report(),
            "schedule 1f1b, stage 0: action 2 is backward of micro-batch 4, chunk 0; there are 4 "
            "micro-batches and 1 chunks, counted from 0");
  s_.stages[0][2] = {Pass::kBackward, 0, -1};
  EXPECT_NE(report().find("micro-batch 0, chunk -1"), std::string::npos);
}

TEST_F(CorruptedSchedule, NamesTheStagesAndActionsOfADeadlock) {
  // Stage 0 wants the gradient of micro-batch 1 before it sends micro-batch 2; stage 1 wants micro-batch 2
  // first. Legal for each stage alone.
  std::swap(s_.stages[1][3], s_.stages[1][4]);  // F0 B0 F1 F2 B1 ...
  EXPECT_EQ(report(), "no error");
  std::swap(s_.stages[0][3], s_.stages[0][4]);  // F0 F1 B0 B1 F2 ...
  EXPECT_EQ(report(),
            "schedule 1f1b deadlocks after 6 of 16 actions; stage 0 waits at backward of micro-batch 1 (its "
            "action 3) "
            "for the gradient from stage 1; stage 1 waits at forward of micro-batch 2 (its action 3) for the "
            "activation from stage 0");
}

TEST_F(CorruptedSchedule, NamesTheChunkOfADeadlock) {
  s_ = make_schedule("interleaved", {2, 2, 2});
  for (StageActions& actions : s_.stages)
    std::stable_sort(actions.begin(), actions.end(), [](const Action& a, const Action& b) {
      return a.pass < b.pass || (a.pass == b.pass && a.chunk > b.chunk);
    });
  EXPECT_EQ(
      report(),
      "schedule interleaved deadlocks after 0 of 16 actions; stage 0 waits at forward of micro-batch 0, "
      "chunk 1 "
      "(its action 0) for the activation from stage 1, chunk 0; stage 1 waits at forward of micro-batch 0, "
      "chunk 1 (its action 0) for the activation from stage 0, chunk 1");
}

TEST_F(CorruptedSchedule, NamesABackwardBothWholeAndInParts) {
  s_.stages[1].push_back({Pass::kBackwardInput, 3, 0});
  EXPECT_EQ(report(),
            "schedule 1f1b, stage 1: micro-batch 3, chunk 0 has its backward both whole and in two parts");
}

TEST_F(CorruptedSchedule, NamesTheMissingHalfOfABackward) {
  s_ = make_schedule("zb-h1", {2, 2, 1});
  const StageActions whole = s_.stages[0];  // F0 F1 I0 W0 I1 W1
  s_.stages[0].pop_back();
  EXPECT_EQ(report(), "schedule zb-h1, stage 0: backward-weight of micro-batch 1 is missing");
  s_.stages[0] = whole;
  s_.stages[0].erase(s_.stages[0].begin() + 2);
  EXPECT_EQ(report(), "schedule zb-h1, stage 0: backward-input of micro-batch 0 is missing");
  s_.stages[0] = whole;
  std::swap(s_.stages[0][2], s_.stages[0][3]);
  EXPECT_EQ(report(),
            "schedule zb-h1, stage 0: backward-weight of micro-batch 0 is action 2, before its "
            "backward-input, action 3");
}

TEST_F(CorruptedSchedule, NamesABackwardInEvaluation) {
  s_ = make_forward_schedule({2, 2, 1});
  s_.stages[1].push_back({Pass::kBackward, 1, 0});
  EXPECT_EQ(
      report(),
      "schedule forward, stage 1: micro-batch 1, chunk 0 has a backward, in a schedule of forwards alone");
}

TEST_F(CorruptedSchedule, NamesAWrongNumberOfStages) {
  s_.stages.pop_back();
  EXPECT_EQ(report(), "schedule 1f1b: 1 lists of actions for 2 stages of 4 micro-batches and 1 chunks");
}

// Whatever is swapped, dropped or doubled: it is reported, or the order is still one that can run.
TEST_F(CorruptedSchedule, IsNeverAcceptedWithAnActionDroppedOrDoubled) {
  for (const std::string& name : schedule_names()) {
    const Schedule good = make_schedule(name, {3, 4, testing::takes_chunks(name) ? 2 : 1});
    for (int stage = 0; stage < 3; ++stage) {
      for (size_t i = 0; i < good.stages[stage].size(); ++i) {
        s_ = good;
        s_.stages[stage].erase(s_.stages[stage].begin() + i);
        ASSERT_NE(report().find("is missing"), std::string::npos) << name << " " << stage << " " << i;
        s_ = good;
        s_.stages[stage].push_back(good.stages[stage][i]);
        ASSERT_NE(report().find("stands twice"), std::string::npos) << name << " " << stage << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
