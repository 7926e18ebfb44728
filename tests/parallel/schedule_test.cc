#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/parallel/schedule_shapes.h"

namespace trireme {
namespace {

using testing::for_every_shape;
using testing::message_of;
using testing::shape_text;

StageActions compact(const std::string& code) {
  // "F0 B0 I1 W1", chunk after a dot: "F0.1"
  StageActions actions;
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i] == ' ') continue;
    const Pass pass = code[i] == 'F'   ? Pass::kForward
                      : code[i] == 'B' ? Pass::kBackward
                      : code[i] == 'I' ? Pass::kBackwardInput
                                       : Pass::kBackwardWeight;
    size_t used = 0;
    const int micro_batch = std::stoi(code.substr(i + 1), &used);
    i += used;
    int chunk = 0;
    if (i + 1 < code.size() && code[i + 1] == '.') {
      chunk = std::stoi(code.substr(i + 2), &used);
      i += used + 1;
    }
    actions.push_back({pass, micro_batch, chunk});
  }
  return actions;
}

TEST(Schedule, GpipeRunsAllForwardsThenAllBackwards) {
  const Schedule s = make_schedule("gpipe", {2, 3, 1});
  EXPECT_EQ(s.stages[0], compact("F0 F1 F2 B0 B1 B2"));
  EXPECT_EQ(s.stages[1], s.stages[0]);
}

TEST(Schedule, OneFOneBAlternatesAfterStagesMinusStageMinusOneForwards) {
  const Schedule s = make_schedule("1f1b", {3, 4, 1});
  EXPECT_EQ(s.stages[0], compact("F0 F1 F2 B0 F3 B1 B2 B3"));
  EXPECT_EQ(s.stages[1], compact("F0 F1 B0 F2 B1 F3 B2 B3"));
  EXPECT_EQ(s.stages[2], compact("F0 B0 F1 B1 F2 B2 F3 B3"));
}

TEST(Schedule, ZbH1PutsWeightGradientsOffByTheStage) {
  const Schedule s = make_schedule("zb-h1", {3, 4, 1});
  EXPECT_EQ(s.stages[0], compact("F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3"));
  EXPECT_EQ(s.stages[1], compact("F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3"));
  EXPECT_EQ(s.stages[2], compact("F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3"));
}

TEST(Schedule, InterleavedTakesStagesMicroBatchesThroughAChunkAtATime) {
  const Schedule s = make_schedule("interleaved", {2, 4, 2});
  EXPECT_EQ(s.stages[0],
            compact("F0.0 F1.0 F0.1 F1.1 F2.0 B0.1 F3.0 B1.1 F2.1 B0.0 F3.1 B1.0 B2.1 B3.1 B2.0 B3.0"));
  EXPECT_EQ(s.stages[1],
            compact("F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 F3.1 B3.1 B2.0 B3.0"));
}

TEST(Schedule, InterleavedLeavesOutWhatAnUnevenLastGroupLacks) {
  const Schedule s = make_schedule("interleaved", {2, 3, 2});
  EXPECT_EQ(s.stages[1], compact("F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 B1.0 F2.1 B2.1 B2.0"));
}

TEST(Schedule, ForwardScheduleHasForwardsAlone) {
  const Schedule s = make_forward_schedule({2, 3, 2});
  EXPECT_TRUE(s.forward_only);
  EXPECT_EQ(s.stages[0], compact("F0.0 F1.0 F0.1 F1.1 F2.0 F2.1"));
  EXPECT_EQ(make_forward_schedule({3, 2, 1}).stages[2], compact("F0 F1"));
}

// The sum of the gradients then has the same order, and the same bits, under every schedule.
TEST(Schedule, EveryChunkSeesMicroBatchesInOrderInEveryPass) {
  for (const std::string& name : schedule_names()) {
    for_every_shape(name, [](const Schedule& s) {
      for (const StageActions& actions : s.stages) {
        std::map<std::pair<int, int>, int> next;
        for (const Action& a : actions)
          ASSERT_EQ(a.micro_batch, (next[{static_cast<int>(a.pass), a.chunk}]++)) << shape_text(s);
      }
    });
  }
}

TEST(Schedule, VirtualStagesGoRoundTheStages) {
  const ScheduleShape shape{3, 4, 2};
  EXPECT_EQ(num_virtual_stages(shape), 6);
  EXPECT_EQ(virtual_stage(shape, 2, 1), 5);
  EXPECT_EQ(virtual_stage(shape, 0, 1), 3);
  for (int v = 0; v < 6; ++v) EXPECT_EQ(virtual_stage(shape, stage_of(shape, v), chunk_of(shape, v)), v);
}

TEST(Schedule, WhatIsProducedIsWhatTheReceiverNeeds) {
  for (const ScheduleShape& shape : {ScheduleShape{1, 3, 1}, {4, 5, 1}, {3, 4, 3}, {1, 2, 4}, {2, 3, 2}}) {
    std::map<int, Message> produced, needed;
    for (int s = 0; s < shape.stages; ++s) {
      for (int c = 0; c < shape.chunks; ++c) {
        for (int m = 0; m < shape.micro_batches; ++m) {
          for (Pass pass : {Pass::kForward, Pass::kBackward}) {
            if (const auto out = produces(shape, s, {pass, m, c})) {
              EXPECT_EQ(out->from_stage, s);
              EXPECT_EQ(out->from_chunk, c);
              EXPECT_TRUE(produced.emplace(out->tag, *out).second) << "tag " << out->tag << " twice";
            }
            if (const auto in = needs(shape, s, {pass, m, c})) {
              EXPECT_EQ(in->to_stage, s);
              EXPECT_EQ(in->to_chunk, c);
              needed.emplace(in->tag, *in);
            }
          }
          EXPECT_EQ(needs(shape, s, {Pass::kBackwardInput, m, c}), needs(shape, s, {Pass::kBackward, m, c}));
          EXPECT_EQ(produces(shape, s, {Pass::kBackwardInput, m, c}),
                    produces(shape, s, {Pass::kBackward, m, c}));
          EXPECT_FALSE(needs(shape, s, {Pass::kBackwardWeight, m, c}));
          EXPECT_FALSE(produces(shape, s, {Pass::kBackwardWeight, m, c}));
        }
      }
    }
    EXPECT_EQ(produced, needed);
    // As many as there are tags, each used, and each between neighbouring virtual stages.
    EXPECT_EQ(static_cast<int>(produced.size()), num_tags(shape));
    for (const auto& [tag, m] : produced) {
      EXPECT_GE(tag, 0);
      EXPECT_LT(tag, num_tags(shape));
      const int step =
          virtual_stage(shape, m.to_stage, m.to_chunk) - virtual_stage(shape, m.from_stage, m.from_chunk);
      EXPECT_EQ(step, m.payload == Payload::kActivation ? 1 : -1);
      EXPECT_EQ(m.local(), shape.stages == 1);
    }
  }
}

TEST(Schedule, ActivationsOfTheLastStageReturnToTheFirstForItsNextChunk) {
  const ScheduleShape shape{3, 4, 2};
  const Message m = produces(shape, 2, {Pass::kForward, 1, 0}).value();
  EXPECT_EQ(m.to_stage, 0);
  EXPECT_EQ(m.to_chunk, 1);
  const Message g = produces(shape, 0, {Pass::kBackward, 1, 1}).value();
  EXPECT_EQ(g.to_stage, 2);
  EXPECT_EQ(g.to_chunk, 0);
  EXPECT_EQ(g.payload, Payload::kGradient);
  EXPECT_FALSE(needs(shape, 0, {Pass::kForward, 1, 0}));
  EXPECT_FALSE(needs(shape, 2, {Pass::kBackward, 1, 1}));
}

TEST(Schedule, RefusesUnknownNamesAndImpossibleShapes) {
  const auto message = [](const std::string& name, const ScheduleShape& shape) {
    return message_of<ConfigError>([&] { make_schedule(name, shape); });
  };
  EXPECT_EQ(message("2f2b", {2, 4, 1}),
            "unknown pipeline schedule \"2f2b\"; use one of gpipe, 1f1b, interleaved, zb-h1");
  EXPECT_EQ(
      message("interleaved", {2, 4, 1}),
      "schedule interleaved needs at least 2 chunks a stage, found 1; set 2 or more, or use schedule 1f1b");
  EXPECT_EQ(message("zb-h1", {2, 4, 2}),
            "schedule zb-h1 has 1 chunk a stage, found 2; set 1, or use schedule interleaved");
  EXPECT_EQ(message("gpipe", {0, 4, 1}),
            "pipeline of 0 stages, 4 micro-batches and 1 chunks a stage; each must be at least 1");
  EXPECT_NE(message("gpipe", {2, -1, 1}).find("-1 micro-batches"), std::string::npos);
  EXPECT_NE(message("1f1b", {1 << 16, 1 << 16, 1}).find("more than 16777216 actions"), std::string::npos);
  EXPECT_NE(message("1f1b", {1, 2147483647, 1}).find("use fewer micro-batches"), std::string::npos);
  EXPECT_NE(message("interleaved", {2147483647, 1, 2147483647}).find("more than"), std::string::npos);
  EXPECT_NE(message_of<ConfigError>([] {
              make_forward_schedule({1, 0, 1});
            }).find("at least 1"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
