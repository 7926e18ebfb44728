#include "trainer/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <mutex>
#include <set>

#include "base/files.h"
#include "comm/threads.h"
#include "model/copy_box.h"
#include "model/weight_files.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"
#include "trainer/checkpoint_files.h"
#include "trainer/checkpoint_slices.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

CheckpointOptions options_for(const fs::path& dir) {
  CheckpointOptions o;
  o.dir = dir;
  o.run_yaml = "run: {seed: 11}\n";
  o.seed = 11;
  o.data_identity = 0xfedcba9876543210;
  o.keep_last = 0;
  return o;
}

MeshShape mesh_of(const Layout& l) {
  MeshShape s;
  s.dp = l.dp;
  s.tp = l.tp;
  s.pp = l.pp;
  return s;
}

OptimizerOptions adamw() {
  OptimizerOptions o;
  o.weight_decay = 0.1;
  o.eps = 1e-5;
  return o;
}

TrainStepOptions step_options(const Layout& l) {
  TrainStepOptions o;
  o.schedule = l.schedule;
  o.clip_grad_norm = 0.5;
  o.dropout_seed = 5;
  return o;
}

// One rank of a run, from its initial weights.
struct Rank {
  Communicator& world;
  Layout layout;
  Mesh mesh;
  ShardedModel model;
  ParameterBuckets buckets;
  Optimizer optimizer;
  TrainStep train;
  Checkpointer checkpointer;
  RunState state;

  Rank(Communicator& w, const ModelConfig& config, const Layout& l, const CheckpointOptions& options,
       const OptimizerOptions& optimizer_options = adamw())
      : world(w),
        layout(l),
        mesh(w, mesh_of(l)),
        model(config, mesh, {l.chunks, l.layers_per_stage, l.sequence}),
        buckets(model.parameters(), mesh, {l.zero, 16 << 10, l.dtype, Device::cpu()}),
        optimizer((model.initialize(11), buckets), optimizer_options),
        train(model, buckets, optimizer, step_options(l)),
        checkpointer(model, buckets, optimizer, options) {}

  double step() {
    const int per_rank = kGlobalBatch / layout.dp;
    std::vector<TokenBatch> batches;
    for (int i = 0; i < per_rank; ++i)
      batches.push_back(make_batch({state.samples + mesh.dp().rank() * per_rank + i}, model.config().vocab_size));
    const StepResult r = train.run(batches, 3e-3, state.updates + 1);
    ++state.step;
    ++state.updates;
    state.samples += kGlobalBatch;
    state.tokens += r.tokens;
    return r.loss;
  }
  std::vector<double> steps(int n) {
    std::vector<double> losses;
    for (int i = 0; i < n; ++i) losses.push_back(step());
    return losses;
  }
  SaveOutcome save(bool best = false) {
    checkpointer.save(state, best);
    return checkpointer.finish().value();
  }
  // Bits of what this rank's next steps depend on.
  std::string bits(bool values = true) {
    std::string all;
    const auto add = [&](const Tensor& t) { all.append(static_cast<const char*>(t.raw()), t.num_bytes()); };
    for (const Bucket& b : buckets.buckets())
      if (values) add(b.values);
    for (const OptimizerState& s : optimizer.state())
      for (const Tensor& shard : s.shards) add(shard);
    return all;
  }
};

void ranks(const Layout& layout, const std::function<void(Communicator&)>& fn) {
  run_ranks(layout.world(), fn, {120});
}

// What one rank alone makes of a checkpoint.
std::string loaded_bits(const ModelConfig& config, const fs::path& dir, int64_t step, DType dtype = DType::kF32,
                        bool values = true) {
  Layout single;
  single.dtype = dtype;
  std::string bits;
  ranks(single, [&](Communicator& world) {
    Rank r(world, config, single, options_for(dir));
    r.checkpointer.load(checkpoint_folder(dir, step));
    bits = r.bits(values);
  });
  return bits;
}

Layout layout_of(int dp, int tp, int pp, int zero = 0, int chunks = 1) {
  Layout l;
  l.dp = dp;
  l.tp = tp;
  l.pp = pp;
  l.zero = zero;
  l.chunks = chunks;
  if (chunks > 1) l.schedule = "interleaved";
  return l;
}

ModelConfig small() {
  ModelConfig c = tiny_gpt2(0);
  c.num_hidden_layers = 2;
  return c;
}

// A folder with checkpoints of steps 1 and 2, which differ, from two data ranks under ZeRO.
const Layout kTwo = layout_of(2, 1, 1, 1);
void save_two(const fs::path& dir) {
  ranks(kTwo, [&](Communicator& world) {
    Rank r(world, small(), kTwo, options_for(dir));
    for (int i = 0; i < 2; ++i) {
      r.step();
      const SaveOutcome saved = r.save();
      EXPECT_TRUE(saved.ok) << saved.message;
    }
  });
}

std::string contents(const fs::path& path) { return read_text_file(path, 64 << 20); }
void put(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::set<std::string> names_in(const fs::path& dir) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(dir)) names.insert(item.path().filename().string());
  return names;
}

// As find_checkpoint(), with the warnings in one string.
std::pair<std::string, std::string> find(const fs::path& dir) {
  std::string warnings;
  const auto found = find_checkpoint(dir, [&](const std::string& w) { warnings += w + '\n'; });
  return {found ? found->filename().string() : "", warnings};
}

TEST(CheckpointSlices, CoverEachElementOfARangeOnceAndReadBack) {
  Parameter p;
  p.shape = {6, 5};  // rows 0-2: rows 4-6 of "a" [9,5]; rows 3-4: columns 1-2 of "b" [5,4], transposed; row 5: padding
  p.pieces.push_back({"a", {9, 5}, {{4, 0}, {3, 5}}, false, 0});
  p.pieces.push_back({"b", {5, 4}, {{0, 1}, {5, 2}}, true, 3});
  const Tensor local = empty({30}, DType::kF32);
  for (int i = 0; i < 30; ++i) local.data<float>()[i] = static_cast<float>(100 + i);
  for (int64_t begin = 0; begin <= 30; ++begin)
    for (int64_t end = begin; end <= 30; ++end) {
      std::set<std::pair<std::string, int>> seen;
      for (const LocalSlice& s : slices_of(p, begin, end)) {
        const Tensor stored = empty(shape_of(s.piece.box), DType::kF32);
        copy_slice_out(local, s.offset, s, stored);
        const SliceName name = parse_slice_name(slice_name("m", s.piece.name, s.piece.box), "test");
        ASSERT_EQ(name.box, s.piece.box);
        for (int64_t i = 0; i < name.box.length[0]; ++i)
          for (int64_t j = 0; j < name.box.length[1]; ++j) {
            const int64_t row = name.box.start[0] + i, column = name.box.start[1] + j;
            const int64_t at = name.tensor == "a" ? (row - 4) * 5 + column : (3 + column - 1) * 5 + row;
            ASSERT_TRUE(begin <= at && at < end);
            ASSERT_EQ(stored.data<float>()[i * name.box.length[1] + j], 100 + at);
            ASSERT_TRUE(seen.insert({name.tensor, row * 10 + column}).second);
          }
      }
      ASSERT_EQ(static_cast<int64_t>(seen.size()), std::min<int64_t>(end, 25) - std::min<int64_t>(begin, 25));
    }
}

TEST(CheckpointSlices, MissingAndContradictingElementsAreNamed) {
  const TempDir dir;
  const auto write = [&](const char* file, const std::string& name, const Shape& shape, float value) {
    SafetensorsWriter w(dir.path() / file, {{name, DType::kF32, shape}});
    const std::vector<float> values(shape.numel(), value);
    w.write(name, std::as_bytes(std::span(values)));
    w.finish();
    return dir.path() / file;
  };
  const fs::path a = write("a", "m|t|0:2,0:3", {2, 3}, 1), b = write("b", "m|t|1:3,0:3", {2, 3}, 2);
  const fs::path c = write("c", "m|t|2:3,0:3", {1, 3}, 5), d = write("d", "m|t|0:2,0:4", {2, 3}, 2);
  const auto error = [&](const std::vector<fs::path>& files, const Box& box) -> std::string {
    try {
      SliceIndex::open(files).read("m", "t", box);
    } catch (const FileError& e) {
      return e.what();
    }
    return "";
  };
  const Box whole{{0, 0}, {3, 3}};
  EXPECT_NE(error({a}, whole).find("m of t [0:3, 0:3]: 3 of 9 elements are in none"), std::string::npos) << error({a}, whole);
  EXPECT_NE(error({a, b}, whole).find("two optimizer files differ"), std::string::npos);
  EXPECT_NE(error({d}, whole).find("not what its name says"), std::string::npos);
  const Tensor t = SliceIndex::open({a, c}).read("m", "t", {{1, 1}, {2, 2}});
  EXPECT_EQ((std::vector<float>(t.data<float>(), t.data<float>() + 4)), (std::vector<float>{1, 1, 5, 5}));
  for (const char* bad : {"m|t", "m|t|", "m|t|1", "m|t|2:1", "m|t|-1:2", "m|t|0:1,", "m|t|0:1,0:1,0:1", "m|t|0:99999999999999999999"})
    EXPECT_THROW(parse_slice_name(bad, "test"), FileError) << bad;
}

TEST(Checkpoint, ResumesToTheBitOnTheSameLayout) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TempDir dir;
    Layout layout = layout_of(2, 2, 1, 2);
    layout.dtype = dtype;
    std::vector<std::string> bits(4);
    std::vector<double> want;
    RunState saved_state;
    ranks(layout, [&](Communicator& world) {
      Rank r(world, tiny_llama(), layout, options_for(dir.path()));
      r.steps(2);
      r.state.best_metric = 0.1;
      r.state.train_s = 1.0 / 3;
      EXPECT_FALSE(r.checkpointer.save(r.state, false));
      const RunState state = r.state;
      const std::string before = r.bits();
      std::vector<double> losses = r.steps(1);  // while files are written
      std::optional<SaveOutcome> outcome;
      while (!outcome) outcome = r.checkpointer.poll();
      EXPECT_TRUE(outcome->ok) << outcome->message;
      losses.push_back(r.step());
      bits[world.rank()] = before + r.bits();
      if (world.rank()) return;
      want = losses;
      saved_state = state;
    });
    ranks(layout, [&](Communicator& world) {
      Rank r(world, tiny_llama(), layout, options_for(dir.path()));
      r.state = r.checkpointer.load(dir.path() / "latest");
      EXPECT_EQ(r.state, saved_state);
      const std::string before = r.bits();
      const std::vector<double> losses = r.steps(2);
      EXPECT_EQ(losses, want);
      EXPECT_TRUE(before + r.bits() == bits[world.rank()]) << "rank " << world.rank();
    });
  }
}

TEST(Checkpoint, AnyLayoutGoesOnFromAnyOther) {
  const TempDir dir;
  const ModelConfig config = tiny_gpt2(0.1);
  const Layout first = layout_of(1, 2, 1);
  std::vector<double> want;
  ranks(first, [&](Communicator& world) {
    Rank r(world, config, first, options_for(dir.path()));
    r.steps(2);
    const SaveOutcome saved = r.save();
    ASSERT_TRUE(saved.ok) << saved.message;
    const auto losses = r.steps(5);
    if (world.rank() == 0) want = losses;
  });
  const std::string bits = loaded_bits(config, dir.path(), 2);
  for (const Layout& layout : {layout_of(1, 1, 2), layout_of(2, 1, 1, 1), layout_of(2, 1, 1, 2), layout_of(1, 1, 1),
                               layout_of(1, 1, 2, 0, 3), layout_of(2, 2, 1, 1)}) {
    SCOPED_TRACE(describe(layout));
    const TempDir again;
    ranks(layout, [&](Communicator& world) {
      Rank r(world, config, layout, options_for(again.path()));
      r.state = r.checkpointer.load(checkpoint_folder(dir.path(), 2));
      const SaveOutcome saved = r.save();
      ASSERT_TRUE(saved.ok) << saved.message;
      const std::vector<double> losses = r.steps(5);
      for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], want[i], 2e-5 * want[i]) << "step " << i + 3;
    });
    EXPECT_TRUE(loaded_bits(config, again.path(), 2) == bits) << "weights or state changed on the way";
  }
}

TEST(Checkpoint, MastersGoWithTheWeightsBetweenTypes) {
  const TempDir dir;
  Layout bf16 = layout_of(1, 2, 1), f32 = layout_of(2, 1, 1, 1);
  bf16.dtype = DType::kBF16;
  ranks(bf16, [&](Communicator& world) {
    Rank r(world, small(), bf16, options_for(dir.path()));
    r.steps(2);
    EXPECT_TRUE(r.save().ok);
  });
  const std::string want = loaded_bits(small(), dir.path(), 2, DType::kBF16);
  ranks(f32, [&](Communicator& world) {
    Rank r(world, small(), f32, options_for(dir.path()));
    r.state = r.checkpointer.load(checkpoint_folder(dir.path(), 2));
    r.state.step = 3;
    EXPECT_TRUE(r.save().ok);
  });
  EXPECT_TRUE(loaded_bits(small(), dir.path(), 3, DType::kBF16) == want);
}

TEST(Checkpoint, IsAModelFolderWithWholeTensors) {
  const TempDir dir, tokenizer;
  put(tokenizer.path() / "tokenizer.json", "{\"model\": 1}");
  put(tokenizer.path() / "notes.txt", "mine");
  for (const bool llama : {false, true}) {
    const ModelConfig config = llama ? tiny_llama() : tiny_gpt2(0);
    const Layout layout = layout_of(1, 2, 2);
    CheckpointOptions options = options_for(dir.path());
    options.tokenizer = tokenizer.path();
    ranks(layout, [&](Communicator& world) {
      Rank r(world, config, layout, options);
      r.state.step = llama;
      EXPECT_TRUE(r.save().ok);
    });
    const fs::path folder = checkpoint_folder(dir.path(), llama);
    EXPECT_EQ(verify_checkpoint(folder), "");
    EXPECT_EQ(contents(folder / "tokenizer.json"), "{\"model\": 1}");
    EXPECT_EQ(contents(folder / "run.yaml"), options.run_yaml);
    EXPECT_FALSE(fs::exists(folder / "notes.txt"));
    const ModelConfig read = ModelConfig::from_directory(folder);
    EXPECT_EQ(read.dtype, DType::kF32);
    EXPECT_EQ(read.vocab_size, config.vocab_size);
    // The initial weights are the same at every layout, so one rank knows them all.
    ranks({}, [&](Communicator& world) {
      Rank r(world, config, {}, options_for(dir.path() / "other"));
      const WeightSource source = WeightSource::open(folder);
      std::set<std::string> names;
      for (const auto& p : r.model.parameters().all())
        for (const Piece& piece : p->pieces) {
          const Tensor want = empty(shape_of(piece.box), DType::kF32);
          copy_piece_out(p->value, piece, want);
          const Tensor got = source.read_box(piece.name, piece.box, DType::kF32);
          EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.num_bytes()), 0) << piece.name;
          names.insert(piece.name);
        }
      EXPECT_EQ(std::set<std::string>(source.names().begin(), source.names().end()), names);
    });
  }
}

TEST(Checkpoint, DamageIsNamedAndTheOneBeforeIsChosen) {
  const TempDir dir;
  save_two(dir.path());
  const fs::path newest = checkpoint_folder(dir.path(), 2);
  EXPECT_EQ(find(dir.path()), std::pair(std::string("step-2"), std::string()));
  const std::set<std::string> files = names_in(newest);
  EXPECT_TRUE(files.count("optimizer-00001.safetensors") && files.count("model.safetensors") && files.count("state.json"));
  const auto expect_passed_over = [&](const std::string& file, const std::string& how) {
    EXPECT_NE(verify_checkpoint(newest).find(file), std::string::npos) << how << ": " << verify_checkpoint(newest);
    const auto [found, warnings] = find(dir.path());
    EXPECT_EQ(found, "step-1") << how;
    EXPECT_NE(warnings.find(file), std::string::npos) << how << ": " << warnings;
  };
  for (const std::string& file : files) {
    const std::string whole = contents(newest / file);
    for (const size_t at : {size_t{0}, whole.size() / 2, whole.size() - 1}) {
      std::string flipped = whole;
      flipped[at] ^= 4;
      put(newest / file, flipped);
      // A changed manifest accuses another file, or itself.
      expect_passed_over(file == "manifest.json" ? "" : file, "flipped " + file);
    }
    put(newest / file, whole.substr(0, whole.size() / 2));
    expect_passed_over(file, "truncated " + file);
    fs::remove(newest / file);
    expect_passed_over(file, "missing " + file);
    put(newest / file, whole);
  }
  EXPECT_EQ(verify_checkpoint(newest), "");
  // Loading checks too, and all ranks hear of it.
  std::string bytes = contents(newest / "optimizer-00001.safetensors");
  bytes[bytes.size() - 5] ^= 1;
  put(newest / "optimizer-00001.safetensors", bytes);
  ranks(kTwo, [&](Communicator& world) {
    Rank r(world, small(), kTwo, options_for(dir.path()));
    EXPECT_THROW(r.checkpointer.load(newest), FileError);
    r.checkpointer.load(checkpoint_folder(dir.path(), 1));
  });
  EXPECT_EQ(find(dir.path() / "absent").first, "");
}

TEST(Checkpoint, AFailedWriteKeepsTheOneBeforeAndIsReportedOnAllRanks) {
  const TempDir dir;
  save_two(dir.path());
  ranks(kTwo, [&](Communicator& world) {
    Rank r(world, small(), kTwo, options_for(dir.path()));
    r.state = r.checkpointer.load(checkpoint_folder(dir.path(), 2));
    r.state.step = 3;
    const auto expect_failure = [&](const std::string& words) {
      const SaveOutcome saved = r.save();
      EXPECT_FALSE(saved.ok);
      EXPECT_NE(saved.message.find(words), std::string::npos) << saved.message;
      EXPECT_EQ(saved.step, 3);
      if (world.rank() == 0) {
        EXPECT_EQ(find(dir.path()).first, "step-2");
      }
      world.barrier();
    };
    const fs::path temporary = temporary_folder(dir.path(), 3);
    if (world.rank() == 0) put(temporary, "in the way");
    expect_failure("rank 0: " + temporary.string());
    if (world.rank() == 0) fs::remove(temporary);
    // As a full disk: no file may be longer than this.
    rlimit before{};
    if (world.rank() == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      getrlimit(RLIMIT_FSIZE, &before);
      rlimit low = before;
      low.rlim_cur = 4096;
      setrlimit(RLIMIT_FSIZE, &low);
    }
    world.barrier();
    expect_failure("File too large");
    if (world.rank() == 0) setrlimit(RLIMIT_FSIZE, &before);
    world.barrier();
    EXPECT_FALSE(fs::exists(temporary));
    // NaN is not saved, whichever rank has it.
    float& weight = *r.buckets.buckets()[0].values.data<float>();
    const float good = weight;
    if (world.rank() == 1) weight = NAN;
    expect_failure("rank 1: the weight ");
    weight = good;
    EXPECT_TRUE(r.save().ok);
  });
  EXPECT_EQ(find(dir.path()), std::pair(std::string("step-3"), std::string()));
}

TEST(Checkpoint, OldOnesArePrunedButTheBest) {
  const TempDir dir;
  CheckpointOptions options = options_for(dir.path());
  options.keep_last = 2;
  options.async = false;
  ranks(kTwo, [&](Communicator& world) {
    Rank r(world, small(), kTwo, options);
    for (r.state.step = 1; r.state.step <= 4; ++r.state.step) EXPECT_TRUE(r.save(r.state.step == 1).ok);
    r.state.step = 4;
    r.state.samples = 99;
    const SaveOutcome again = r.save();  // takes the place of the one that is there
    EXPECT_TRUE(again.ok) << again.message;
    EXPECT_EQ(again.message, "");
    EXPECT_EQ(r.checkpointer.load(dir.path() / "latest").samples, 99);
  });
  EXPECT_EQ(names_in(dir.path()), (std::set<std::string>{"best", "latest", "step-1", "step-3", "step-4"}));
  EXPECT_EQ(fs::read_symlink(dir.path() / "best"), "step-1");
  EXPECT_EQ(fs::read_symlink(dir.path() / "latest"), "step-4");
}

TEST(Checkpoint, LeftoversOfAKilledRunAreRemoved) {
  const TempDir dir;
  fs::create_directories(dir.path() / "step-7.tmp");
  put(dir.path() / "step-7.tmp" / "model.safetensors", "half");
  fs::create_directories(dir.path() / "step-3.old.tmp");
  fs::create_symlink("step-7", dir.path() / "latest.tmp");
  put(dir.path() / "log.jsonl", "{}");
  fs::create_directories(dir.path() / "step-12x");
  ranks({}, [&](Communicator& world) {
    {
      Rank r(world, small(), {}, options_for(dir.path()));
      EXPECT_EQ(names_in(dir.path()), (std::set<std::string>{"log.jsonl", "step-12x"}));
      r.checkpointer.save(r.state, false);  // never published
    }
    EXPECT_EQ(find(dir.path()).first, "");
    Rank r(world, small(), {}, options_for(dir.path()));
    EXPECT_EQ(names_in(dir.path()), (std::set<std::string>{"log.jsonl", "step-12x"}));
  });
}

TEST(Checkpoint, RefusesAnotherRunModelOrOptimizer) {
  const TempDir dir;
  save_two(dir.path());
  const auto error = [&](const ModelConfig& config, const CheckpointOptions& options, const OptimizerOptions& optimizer) {
    std::string message;
    ranks({}, [&](Communicator& world) {
      Rank r(world, config, {}, options, optimizer);
      try {
        r.checkpointer.load(checkpoint_folder(dir.path(), 2));
      } catch (const ConfigError& e) {
        message = std::string("config: ") + e.what();
      } catch (const FileError& e) {
        message = std::string("file: ") + e.what();
      }
    });
    return message;
  };
  const auto expect = [](const std::string& message, const std::string& kind, const std::string& words) {
    EXPECT_TRUE(message.starts_with(kind) && message.find(words) != std::string::npos) << message;
  };
  const CheckpointOptions same = options_for(dir.path());
  CheckpointOptions other = same;
  other.seed = 12;
  expect(error(small(), other, adamw()), "config: ", "run.seed=11, this run has 12; set run.seed=11");
  other = same;
  other.data_identity = 5;
  expect(error(small(), other, adamw()), "config: ", "run.resume=never");
  other.data_identity = 0;
  EXPECT_EQ(error(small(), other, adamw()), "");
  OptimizerOptions sgd;
  sgd.name = "sgd";
  expect(error(small(), same, sgd), "file: ", "train.optimizer=adamw, this run has sgd");
  ModelConfig model = small();
  model.intermediate_size = 64;
  expect(error(model, same, adamw()), "file: ", "transformer.h.0.mlp.");
  model = small();
  model.num_hidden_layers = 1;
  expect(error(model, same, adamw()), "file: ", "holds transformer.h.1.");
  model = small();
  model.num_attention_heads = model.num_key_value_heads = 8;
  model.head_dim = 4;
  expect(error(model, same, adamw()), "file: ", "n_head is 4, the model's is 8");
}

}  // namespace
}  // namespace trireme::testing
