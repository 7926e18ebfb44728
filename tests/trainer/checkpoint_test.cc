// What a saved run holds, and that it goes on, at its own layout and at others.
#include <cstring>
#include <set>

#include "model/copy_box.h"
#include "model/weight_files.h"
#include "tests/trainer/checkpoint_harness.h"
#include "trainer/checkpoint_files.h"

namespace trireme::testing {
namespace {

// What one rank alone makes of a checkpoint.
std::string loaded_bits(const ModelConfig& config, const fs::path& dir, int64_t step,
                        DType dtype = DType::kF32, bool values = true) {
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
      r.state.total_s = 2.0 / 3;
      r.state.first_loss = 5.1;
      r.state.best_validation_loss = 4.9;
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
  for (const Layout& layout : {layout_of(1, 1, 2), layout_of(2, 1, 1, 1), layout_of(2, 1, 1, 2),
                               layout_of(1, 1, 1), layout_of(1, 1, 2, 0, 3), layout_of(2, 2, 1, 1)}) {
    SCOPED_TRACE(describe(layout));
    const TempDir again;
    ranks(layout, [&](Communicator& world) {
      Rank r(world, config, layout, options_for(again.path()));
      r.state = r.checkpointer.load(checkpoint_folder(dir.path(), 2));
      const SaveOutcome saved = r.save();
      ASSERT_TRUE(saved.ok) << saved.message;
      const std::vector<double> losses = r.steps(5);
      for (size_t i = 0; i < losses.size(); ++i)
        EXPECT_NEAR(losses[i], want[i], 2e-5 * want[i]) << "step " << i + 3;
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

}  // namespace
}  // namespace trireme::testing
