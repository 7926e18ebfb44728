#include "trainer/profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "base/files.h"
#include "base/json.h"
#include "comm/threads.h"
#include "tensor/ops/linear.h"
#include "tensor/ops/residual.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

// Writes down what it is told.
struct Notes final : OpObserver {
  struct Note {
    std::string what;
    double flops, bytes;
  };
  std::vector<Note> notes;
  int depth = 0;

  void forward_begins() override {}
  void forward_done(const Done& d) override { notes.push_back({d.op, d.flops, d.bytes}); }
  void backward_begins() override { ++depth; }
  void backward_done(const Done& d) override { notes.push_back({text(d.op, " backward ", depth--), d.flops, d.bytes}); }
};

Tensor counting(const Shape& shape) {
  Tensor t = empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = std::sin(static_cast<float>(i) + 1);
  return t;
}

TEST(OpObserver, IsToldOfEachOpWithItsOperationsAndBytes) {
  Tape tape;
  Notes notes;
  tape.observe(&notes);
  Tensor weight = counting({5, 3});
  GradSlot slot{empty({5, 3}, DType::kF32)};
  weight.set_slot(&slot);
  const Tensor x = tape.variable(counting({7, 3}));
  const Tensor y = linear(x, weight);
  const Tensor z = add(y, y);
  tape.backward_inputs(z, counting({7, 5}));
  tape.backward_weights();
  ASSERT_EQ(notes.notes.size(), 5u);
  const double product = 2 * 7 * 5 * 3;
  const struct {
    const char* what;
    double flops, bytes;
  } want[] = {{"linear", product, 4 * 7 * (3 + 5)},
              {"add", 0, 4 * 3 * 7 * 5},
              {"add backward 1", 0, 0},  // hands its gradient on
              {"linear backward 1", 2 * product, 4 * 7 * (3 + 5)},
              {"linear backward 1", 0, 0}};  // the weights' part: counted before
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(notes.notes[i].what, want[i].what);
    EXPECT_EQ(notes.notes[i].flops, want[i].flops) << i;
    EXPECT_EQ(notes.notes[i].bytes, want[i].bytes) << i;
  }
}

TEST(OpObserver, SeesRecomputedOpsInsideTheirBackward) {
  Tape tape;
  Notes notes;
  tape.observe(&notes);
  const Tensor weight = counting({3, 3});
  const Tensor x = tape.variable(counting({2, 3}));
  const Tensor y = recompute([&](const Tensor& in) { return linear(in, weight); }, x);
  tape.backward(y, counting({2, 3}));
  ASSERT_EQ(notes.notes.size(), 4u);
  EXPECT_EQ(notes.notes[0].what, "recompute");
  EXPECT_EQ(notes.notes[0].bytes, 0);
  EXPECT_EQ(notes.notes[1].what, "linear");
  EXPECT_EQ(notes.notes[2].what, "linear backward 2");
  EXPECT_EQ(notes.notes[3].what, "recompute backward 1");
}

TEST(CommObserver, IsToldOfCallsOfTheGroupsWithTheirBytes) {
  std::mutex mutex;
  std::vector<std::string> seen;
  run_ranks(2, [&](Communicator& world) {
    struct Listener final : CommObserver {
      std::mutex mutex;
      std::vector<std::string> seen;
      void done(const CommEvent& e) override {
        std::lock_guard lock(mutex);
        EXPECT_LE(e.begin, e.end);
        seen.push_back(text(e.call, ' ', e.group, ' ', e.ranks, ' ', e.num_bytes, ' ', e.peer, ' ', static_cast<int>(e.how)));
      }
    } listener;
    const Tensor t = counting({6}), half = counting({3}), message = counting({5});
    world.observe(&listener);
    world.all_reduce(t);
    world.reduce_scatter(t, half);
    Work work = world.all_gather_async(half, t);
    work.wait();
    world.barrier();
    Work out = world.send(message, 1 - world.rank(), 3), in = world.recv(counting({5}), 1 - world.rank(), 3);
    in.wait();
    out.wait();
    world.observe(nullptr);
    world.all_reduce(t);
    if (world.rank() == 0) {
      std::lock_guard lock(mutex);
      // Whether the caller had to wait for the gather is a matter of luck.
      for (const std::string& s : listener.seen)
        if (s.find("all_gather world 2 12 -1 2") == s.npos) seen.push_back(s);
    }
  });
  EXPECT_EQ(seen, (std::vector<std::string>{"all_reduce world 2 24 -1 0", "reduce_scatter world 2 24 -1 0",
                                            "all_gather world 2 12 -1 1", "barrier world 2 0 -1 0",
                                            "recv world 2 20 1 2", "send world 2 20 1 2"}));
}

TEST(Profile, ClocksOfThreadsAgreeWithinARoundTrip) {
  run_ranks(3, [](Communicator& world) {
    const ClockOffset offset = measure_clock_offset(world);
    EXPECT_LE(std::abs(offset.offset_s), offset.round_trip_s / 2 + 1e-9);
    EXPECT_TRUE(world.rank() != 0 || offset.offset_s == 0);
  });
}

// One profiled step, and one before and after it that are not.
struct Profiled {
  RankEvents ranks;
  std::vector<double> losses;
  std::string table;
};
Profiled profile_step(const Layout& layout, const std::filesystem::path& dir, bool watched) {
  Profiled out;
  std::mutex mutex;
  const ModelConfig config = tiny_gpt2(0.1);
  out.ranks.resize(static_cast<size_t>(layout.world()));
  run_ranks(layout.world(), [&](Communicator& world) {
    MeshShape shape;
    shape.dp = layout.dp;
    shape.tp = layout.tp;
    shape.pp = layout.pp;
    const Mesh mesh(world, shape);
    ShardedModel model(config, mesh, {layout.chunks, {}, layout.sequence});
    ParameterBuckets buckets(model.parameters(), mesh, {layout.zero, 16 << 10, DType::kF32, Device::cpu()});
    model.initialize(3);
    Optimizer optimizer(buckets, {});
    TrainStepOptions options;
    options.recompute = layout.recompute;
    TrainStep train(model, buckets, optimizer, options);
    std::unique_ptr<Profiler> profiler;
    if (watched) profiler = std::make_unique<Profiler>(mesh, 1e9);
    for (int step = 1; step <= 3; ++step) {
      if (watched && step == 2) {
        profiler->attach();
        profiler->begin_step(step);
        train.set_profiler(profiler.get());
      }
      std::vector<TokenBatch> batches;
      for (int64_t m = 0; m < 4; ++m) batches.push_back(make_batch({m + 4 * mesh.dp().rank()}, config));
      const auto begin = Profiler::Clock::now();
      const double loss = train.run(batches, 1e-3, step).loss;
      if (watched && step == 2) {
        profiler->phase("step", begin, Profiler::Clock::now());
        profiler->detach();
        train.set_profiler(nullptr);
      }
      std::lock_guard lock(mutex);
      if (world.rank() == 0) out.losses.push_back(loss);
    }
    if (!watched) return;
    const std::string table = profiler->write(dir);
    std::lock_guard lock(mutex);
    out.ranks[static_cast<size_t>(world.rank())] = profiler->events();
    EXPECT_EQ(table.empty(), world.rank() != 0);
    if (world.rank() == 0) out.table = table;
  });
  return out;
}

TEST(Profile, HoldsEveryOpCollectiveAndActionOfTheStepAndChangesNoLoss) {
  const TempDir dir;
  const Layout layout{.dp = 1, .tp = 2, .pp = 2};
  const Profiled p = profile_step(layout, dir.path(), true);
  EXPECT_EQ(p.losses, profile_step(layout, dir.path(), false).losses);
  const ModelConfig config = tiny_gpt2(0.1);
  for (size_t r = 0; r < 4; ++r) {
    std::map<std::string, int> count;
    double last = 0;
    for (const ProfileEvent& e : p.ranks[r]) {
      EXPECT_EQ(e.step, 2);
      EXPECT_LE(e.begin, e.end) << e.name;
      EXPECT_GE(e.own, 0) << e.name;
      EXPECT_LE(e.own, e.end - e.begin + 1e-9) << e.name;
      last = std::max(last, e.end);
      ++count[e.name];
    }
    // 4 micro-batches; half of the layers each with four products.
    const int layers = static_cast<int>(config.num_hidden_layers) / 2;
    EXPECT_EQ(count["linear"], 4 * layers * 4) << r;
    EXPECT_EQ(count["linear backward"], 4 * layers * 4);
    EXPECT_EQ(count["attention"], 4 * layers);
    EXPECT_EQ(count["vocabulary_loss"], r >= 2 ? 4 : 0);
    EXPECT_EQ(count["forward of micro-batch 3"], 1);
    EXPECT_EQ(count["backward of micro-batch 3"], 1);
    EXPECT_EQ(count["step"], 1);
    EXPECT_EQ(count["optimizer"], 1);
    // Two sums a layer forward, two backward, beside the products.
    EXPECT_GE(count["all_reduce tp"], 4 * layers * 4);
    EXPECT_LT(last, 600);
    for (const ProfileEvent& e : p.ranks[r]) {
      // [24 tokens, hidden] f32
      if (e.track == Track::kBeside && e.name == "all_reduce tp") {
        EXPECT_EQ(e.num_bytes, static_cast<double>(4 * kSequenceLength * config.hidden_size));
      }
      if (e.name == "forward of micro-batch 3") {
        EXPECT_EQ(e.stage, static_cast<int>(r / 2));
      }
    }
  }
  // Files: a trace that is a JSON array with all ranks, the table, and pictures.
  const std::string where = (dir.path() / "profile/timeline.json").string();
  const boost::json::value trace = parse_json(read_text_file(where, 64 << 20), where);
  std::map<int64_t, size_t> events;
  for (const boost::json::value& e : trace.as_array())
    if (e.at("ph") == "X") ++events[e.at("pid").to_number<int64_t>()];
  for (size_t r = 0; r < 4; ++r) EXPECT_EQ(events[static_cast<int64_t>(r)], p.ranks[r].size());
  EXPECT_EQ(read_text_file(dir.path() / "profile/table.txt", 1 << 20), p.table);
  for (const char* part : {"linear backward", "all_reduce tp", "wait for recv pp", "bubble", "together"})
    EXPECT_NE(p.table.find(part), p.table.npos) << part;
  EXPECT_NE(read_text_file(dir.path() / "profile/pipeline.svg", 1 << 20).find("stage 1"), std::string::npos);
  EXPECT_NE(read_text_file(dir.path() / "profile/step.svg", 8 << 20).find("rank 3"), std::string::npos);
}

TEST(Profile, TimesAreWithoutWhatIsInside) {
  // With everything recomputed, the outer backward holds all other ops of a block.
  const TempDir dir;
  const Profiled p = profile_step({.tp = 2, .recompute = Recompute::kFull}, dir.path(), true);
  for (const auto& events : p.ranks) {
    double own = 0, step = 0, outer = 0, whole = 0;
    for (const ProfileEvent& e : events) {
      if (e.track == Track::kCompute || e.track == Track::kCommunication) own += e.own;
      if (e.name == "step") step = e.own;
      if (e.name == "recompute backward") {
        outer += e.own;
        whole += e.end - e.begin;
      }
    }
    EXPECT_LE(own, step * 1.0001);
    EXPECT_GT(own, step * 0.3);
    EXPECT_LT(outer, whole * 0.5);
  }
}

ProfileEvent event(Track track, const std::string& name, double begin, double end, double own, double floor,
                   double num_bytes, int64_t step) {
  ProfileEvent e{track, name, begin, end};
  e.own = own;
  e.floor = floor;
  e.num_bytes = num_bytes;
  e.step = step;
  return e;
}

TEST(ProfileReport, RowsAreMeansOverRanksAndSteps) {
  const RankEvents ranks = {
      {event(Track::kCompute, "linear", 0, 3, 2, 1, 0, 7), event(Track::kCompute, "linear", 4, 6, 2, 1, 0, 8),
       event(Track::kCommunication, "all_reduce tp", 1, 2, 1, 0.25, 800, 7)},
      {event(Track::kCompute, "linear", 0, 4, 4, 1, 0, 7), event(Track::kCompute, "gelu", 4, 5, 1, 0, 0, 8)}};
  const std::vector<ProfileRow> rows = profile_rows(ranks);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].name, "linear");
  EXPECT_DOUBLE_EQ(rows[0].calls, 0.75);
  EXPECT_DOUBLE_EQ(rows[0].seconds, 2);
  EXPECT_DOUBLE_EQ(rows[0].floor, 0.75);
  EXPECT_EQ(rows[1].name, "gelu");
  EXPECT_DOUBLE_EQ(rows[1].seconds, 0.25);
  EXPECT_EQ(rows[2].track, Track::kCommunication);
  EXPECT_DOUBLE_EQ(rows[2].num_bytes, 200);
  const std::string table = profile_table(ranks, "rates");
  EXPECT_NE(table.find("  linear                                 0.75   2000.000               750.000       2.67\n"),
            table.npos)
      << table;
  EXPECT_NE(table.find("  together                                      2250.000               750.000\n"), table.npos) << table;
}

TEST(ProfileReport, TraceHasTimesInMicroseconds) {
  ProfileEvent e = event(Track::kPipeline, "forward of micro-batch \"3\"", 0.5, 0.75, 0.25, 0, 0, 9);
  e.action = {Pass::kForward, 3, 1};
  e.stage = 2;
  const std::string trace = trace_json({{}, {e, event(Track::kBeside, "all_reduce dp", 1, 2, 1, 0.125, 4096, 9)}});
  EXPECT_NE(trace.find(R"({"ph":"X","name":"forward of micro-batch \"3\"","cat":"pipeline","pid":1,"tid":1,"ts":500000.000,)"
                       R"("dur":250000.000,"args":{"step":9,"stage":2,"micro_batch":3,"chunk":1}})"),
            trace.npos)
      << trace;
  EXPECT_NE(trace.find(R"("pid":1,"tid":4,"ts":1000000.000,"dur":1000000.000,"args":{"step":9,"bytes":4096,"floor_us":125000.000}})"),
            trace.npos)
      << trace;
  EXPECT_NO_THROW(parse_json(trace, "trace"));
}

TEST(ProfileReport, PackedEventsComeBackAndDamageIsRefused) {
  ProfileEvent e = event(Track::kCommunication, "recv pp", 1.5, 2.5, 1, 0.5, 77, 1LL << 40);
  e.action = {Pass::kBackwardWeight, 5, 2};
  e.stage = 3;
  const std::vector<ProfileEvent> events = {e, event(Track::kPhase, "", -1, 0, 1, 0, 0, 0)};
  std::string bytes = pack_events(events);
  EXPECT_EQ(unpack_events(bytes), events);
  EXPECT_TRUE(unpack_events("").empty());
  for (size_t size : {size_t{1}, bytes.size() - 1}) EXPECT_THROW(unpack_events(bytes.substr(0, size)), FileError);
  std::fill(bytes.begin(), bytes.end(), '\xff');
  EXPECT_THROW(unpack_events(bytes), FileError);
}

}  // namespace
}  // namespace trireme::testing
