// Damaged, failed, old and foreign checkpoints.
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <set>

#include "tests/trainer/checkpoint_harness.h"
#include "trainer/checkpoint_files.h"

namespace trireme::testing {
namespace {

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

TEST(Checkpoint, DamageIsNamedAndTheOneBeforeIsChosen) {
  const TempDir dir;
  save_two(dir.path());
  const fs::path newest = checkpoint_folder(dir.path(), 2);
  EXPECT_EQ(find(dir.path()), std::pair(std::string("step-2"), std::string()));
  const std::set<std::string> files = names_in(newest);
  EXPECT_TRUE(files.count("optimizer-00001.safetensors") && files.count("model.safetensors") &&
              files.count("state.json"));
  const auto expect_passed_over = [&](const std::string& file, const std::string& how) {
    EXPECT_NE(verify_checkpoint(newest).find(file), std::string::npos)
        << how << ": " << verify_checkpoint(newest);
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
    if (world.rank() == 0) {  // it makes the next one
      EXPECT_FALSE(fs::exists(temporary));
    }
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
  const auto error = [&](const ModelConfig& config, const CheckpointOptions& options,
                         const OptimizerOptions& optimizer) {
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
