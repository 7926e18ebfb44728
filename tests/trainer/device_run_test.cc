// Whole runs on a CUDA device, by train() itself: what they log and save is what the same runs log and save on the CPU, and
// either goes on from the other's checkpoints. In the emulated program device memory is closed to the processor but in
// kernels and copies.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/files.h"
#include "base/json.h"
#include "comm/threads.h"
#include "data/token_file.h"
#include "model/load_weights.h"
#include "tensor/on_device.h"
#include "tensor/rng.h"
#include "tests/cuda_device.h"
#include "tests/errors.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_slices.h"
#include "trainer/device.h"
#include "trainer/train.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVocabulary = 101;

bool contains(const std::string& whole, const std::string& part) { return whole.find(part) != whole.npos; }

void write_tokens(const fs::path& path, uint64_t seed) {
  TokenFileWriter writer(path, kVocabulary, 0);
  for (uint32_t document = 0; document < 24; ++document) {
    std::vector<int32_t> ids;
    for (uint32_t i = 0; i < 9 + document; ++i)
      ids.push_back(static_cast<int32_t>(philox(seed, 0, document, i)[0] % 50));
    writer.add_document(ids);
  }
  writer.finish();
}

constexpr const char* kGpt2 =
    "model: {model_type: gpt2, vocab_size: 101, n_embd: 32, n_layer: 2, n_head: 4, n_positions: 32, embd_pdrop: 0.1, "
    "attn_pdrop: 0.1, resid_pdrop: 0.1}\n";
constexpr const char* kLlama =
    "model: {model_type: llama, vocab_size: 101, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, "
    "num_key_value_heads: 2, intermediate_size: 48, max_position_embeddings: 32, tie_word_embeddings: false}\n";

// A folder with data, where runs are made.
class Runs {
 public:
  explicit Runs(std::string model) : model_(std::move(model)) {
    write_tokens(dir_.path() / "train.tokens", 1);
    write_tokens(dir_.path() / "validation.tokens", 2);
  }

  fs::path folder(const std::string& name) const { return dir_.path() / name; }

  // Six steps on `ranks` threads, or up to the end of step `stop_after`. Returns the exit code.
  int run(const std::string& name, std::vector<std::string> overrides, int ranks = 1, int64_t stop_after = -1) {
    const std::string data = dir_.path().string();
    write_file_atomically(
        dir_.path() / "run.yaml",
        text(model_, "data: {train: ", data, "/train.tokens, validation: ", data,
             "/validation.tokens, sequence_length: 24, validation_samples: 4}\n"
             "train: {steps: 6, global_batch: 4, micro_batch: 2, learning_rate: 3e-3, warmup_steps: 2, "
             "evaluate_every_steps: 3, clip_grad_norm: 0.5, eps: 1e-5}\n"
             "checkpoint: {every_steps: 3, every_minutes: 0, keep_last: 0}\n"
             "log: {tensorboard: false, progress: none}\n"
             "run: {log_every_steps: 1, threads: 1}\n"));
    overrides.push_back("run.dir=" + folder(name).string());
    const RunConfig config = load_run_config((dir_.path() / "run.yaml").string(), overrides);
    int code = -1;
    run_ranks(ranks, [&](Communicator& world) {
      TrainHooks hooks;
      int64_t begun = 0;
      hooks.step = [&](int64_t step) { begun = step; };
      hooks.stop_requested = [&] { return begun == stop_after; };
      const int mine = train(world, config, hooks);
      if (world.rank() == 0) code = mine;
    }, {.timeout_s = 240});
    return code;
  }

  // Losses, validation losses and gradient norms by step.
  std::map<std::string, std::vector<double>> metrics(const std::string& name) const {
    std::map<std::string, std::vector<double>> all;
    const std::string contents = read_text_file(folder(name) / "metrics.jsonl", 1 << 20);
    for (size_t begin = 0, end; (end = contents.find('\n', begin)) != contents.npos; begin = end + 1) {
      const boost::json::value value = parse_json(contents.substr(begin, end - begin), name);
      const JsonObject line(value, name);
      const std::string type = line.string("type");
      if (type == "summary") continue;
      all[type + " loss"].push_back(line.number("loss", 0));
      if (type == "step") all["grad_norm"].push_back(line.number("grad_norm", 0));
    }
    return all;
  }

 private:
  TempDir dir_;
  std::string model_;
};

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance * want[i]) << what << " " << i;
}

std::map<std::string, std::vector<float>> tensors_in(const SafetensorsFile& file) {
  std::map<std::string, std::vector<float>> all;
  for (const SafetensorsEntry& e : file.entries()) {
    const Tensor stored = file.tensor(e.name).detach();
    const Tensor t = stored.dtype() == DType::kF32 ? stored : cast(stored, DType::kF32);
    all[e.name] = {t.data<float>(), t.data<float>() + t.numel()};
  }
  return all;
}

void expect_same_checkpoint(const fs::path& got, const fs::path& want, double tolerance) {
  EXPECT_EQ(verify_checkpoint(got), "");
  for (const char* file : {"model.safetensors", "optimizer-00000.safetensors"}) {
    const auto a = tensors_in(SafetensorsFile::open(got / file)), b = tensors_in(SafetensorsFile::open(want / file));
    ASSERT_EQ(a.size(), b.size()) << file;
    for (const auto& [name, values] : b) {
      ASSERT_TRUE(a.contains(name)) << file << " " << name;
      // A key's bias moves all scores of a row alike: its gradient is 0 but for rounding.
      if (contains(name, "exp_avg") && contains(name, "c_attn.bias|32:64")) continue;
      EXPECT_LE(relative_error(a.at(name), values), tolerance) << file << " " << name;
    }
  }
}

void expect_same_runs(const Runs& runs, const std::string& got, const std::string& want, double tolerance) {
  const auto a = runs.metrics(got), b = runs.metrics(want);
  ASSERT_EQ(b.at("step loss").size(), 6u);
  ASSERT_EQ(b.at("evaluation loss").size(), 2u);
  for (const auto& [name, values] : b) expect_near(a.at(name), values, name == "grad_norm" ? 10 * tolerance : tolerance, name);
}

class RunsOnADevice : public ::testing::Test {
 protected:
  void SetUp() override { require_device(); }
};

TEST_F(RunsOnADevice, LogAndSaveWhatTheCpusDo) {
  for (const char* model : {kGpt2, kLlama}) {
    Runs runs(model);
    ASSERT_EQ(runs.run("cpu", {"run.device=cpu"}), kExitDone);
    ASSERT_EQ(runs.run("cuda", {"run.device=cuda"}), kExitDone);
    expect_same_runs(runs, "cuda", "cpu", 1e-5);
    for (const char* step : {"step-3", "step-6"})
      expect_same_checkpoint(runs.folder("cuda") / step, runs.folder("cpu") / step, 1e-3);
  }
}

TEST_F(RunsOnADevice, GoOnFromCheckpointsOfTheCpuAndTheOtherWay) {
  Runs runs(kGpt2);
  ASSERT_EQ(runs.run("whole", {"run.device=cpu"}), kExitDone);
  for (const auto& [name, first, second] : {std::tuple("to cuda", "run.device=cpu", "run.device=cuda"),
                                            std::tuple("to cpu", "run.device=cuda", "run.device=cpu")}) {
    ASSERT_EQ(runs.run(name, {first}, 1, 4), kExitSaved) << name;
    ASSERT_TRUE(fs::exists(runs.folder(name) / "step-4"));
    ASSERT_EQ(runs.run(name, {second, "run.resume=must"}), kExitDone) << name;
    expect_same_runs(runs, name, "whole", 1e-5);
    expect_same_checkpoint(runs.folder(name) / "step-6", runs.folder("whole") / "step-6", 1e-3);
  }
}

// Two ranks, on a device each where there are two, at another layout after each stop, and at last one on the CPU.
TEST_F(RunsOnADevice, OfSeveralRanksGoOnAtAnyLayout) {
  Runs runs(kGpt2);
  ASSERT_EQ(runs.run("whole", {"run.device=cpu"}), kExitDone);
  ASSERT_EQ(runs.run("moved", {"run.device=cuda", "parallel.tensor=2", "parallel.sequence=true"}, 2, 2), kExitSaved);
  ASSERT_EQ(runs.run("moved", {"run.device=cuda", "parallel.zero=2"}, 2, 3), kExitSaved);
  ASSERT_EQ(runs.run("moved", {"run.device=cuda", "parallel.pipeline=2"}, 2, 5), kExitSaved);
  ASSERT_EQ(runs.run("moved", {"run.device=cpu"}), kExitDone);
  expect_same_runs(runs, "moved", "whole", 1e-5);
  expect_same_checkpoint(runs.folder("moved") / "step-6", runs.folder("whole") / "step-6", 1e-3);
}

TEST_F(RunsOnADevice, KeepMastersOfBf16AcrossDevices) {
  Runs runs(kLlama);
  ASSERT_EQ(runs.run("cpu", {"run.device=cpu", "train.dtype=bf16"}), kExitDone);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", "train.dtype=bf16"}, 1, 3), kExitSaved);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", "train.dtype=bf16"}), kExitDone);
  expect_same_runs(runs, "cuda", "cpu", 5e-3);
  // At 32 bits the masters are the weights, wherever they come from.
  ASSERT_EQ(runs.run("as f32", {"run.device=cuda", "train.dtype=bf16"}, 1, 3), kExitSaved);
  ASSERT_EQ(runs.run("as f32", {"run.device=cuda", "train.dtype=f32"}), kExitDone);
  expect_same_runs(runs, "as f32", "cpu", 5e-3);
}

TEST_F(RunsOnADevice, RunInF16WithTheirLossScaleInTheirCheckpoints) {
  Runs runs(kGpt2);
  ASSERT_EQ(runs.run("cpu", {"run.device=cpu", "train.dtype=f16"}), kExitDone);
  ASSERT_EQ(runs.run("again", {"run.device=cpu", "train.dtype=f16"}, 1, 3), kExitSaved);
  const std::string state = (runs.folder("again") / "step-3" / "state.json").string();
  const boost::json::value saved = parse_json(read_text_file(state, 1 << 20), state);
  EXPECT_EQ(JsonObject(saved, state).number("loss_scale"), 65536);
  EXPECT_EQ(JsonObject(saved, state).integer("loss_scale_steps", 0), 3);
  ASSERT_EQ(runs.run("again", {"run.device=cpu", "train.dtype=f16"}), kExitDone);
  expect_same_runs(runs, "again", "cpu", 0);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", "train.dtype=f16"}, 1, 3), kExitSaved);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", "train.dtype=f16"}), kExitDone);
  expect_same_runs(runs, "cuda", "cpu", 2e-3);
}

TEST_F(RunsOnADevice, StartFromAModelsFolder) {
  Runs runs(kGpt2);
  ASSERT_EQ(runs.run("first", {"run.device=cpu"}), kExitDone);
  const std::string from = "model.from=" + (runs.folder("first") / "step-6").string();
  ASSERT_EQ(runs.run("cpu", {"run.device=cpu", from}), kExitDone);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", from}), kExitDone);
  expect_same_runs(runs, "cuda", "cpu", 1e-5);
}

TEST_F(RunsOnADevice, ProfileWhatTheyDo) {
  Runs runs(kLlama);
  ASSERT_EQ(runs.run("cuda", {"run.device=cuda", "profile.steps=1", "train.steps=3"}), kExitDone);
  EXPECT_PRED2(contains, read_text_file(runs.folder("cuda") / "profile" / "table.txt", 1 << 20), "attention backward");
}

// Every tensor rank's part of every weight, those that the file has turned or padded too.
TEST_F(RunsOnADevice, LoadTheBitsThatTheCpuLoads) {
  for (ModelConfig config : {tiny_gpt2(0), tiny_llama()}) {
    TempDir dir;
    config.num_hidden_layers = 2;
    for (int tp : {1, 2}) {
      run_ranks(tp, [&](Communicator& world) {
        if (world.rank() == 0) cuda::select_device(0);
        else cuda::select_device(1 % cuda::device_count());
        const Device there{DeviceKind::kCuda, cuda::selected_device(), nullptr};
        Mesh mesh(world, {.tp = tp});
        ShardedModel here(config, mesh, {}), model(config, mesh, {}, there);
        for (DType dtype : {DType::kF32, DType::kBF16}) {
          allocate_values(here.parameters(), dtype, Device::cpu());
          here.initialize(3);
          allocate_values(model.parameters(), dtype, there);
          for (size_t i = 0; i < here.parameters().all().size(); ++i) {
            const Parameter &a = *here.parameters().all()[i], &b = *model.parameters().all()[i];
            for (const Piece& piece : a.pieces) {
              const Tensor box = empty({piece.box.numel()}, dtype), back = empty({piece.box.numel()}, dtype);
              copy_piece_out(a.value, piece, box);
              copy_piece_in(box, piece, b.value);
              copy_piece_out(b.value, piece, back);
              EXPECT_EQ(std::memcmp(box.raw(), back.raw(), box.num_bytes()), 0) << piece.name;
              const Tensor got = to_device(b.value.rows(piece.row, piece.row + piece.rows()), Device::cpu());
              EXPECT_EQ(std::memcmp(got.raw(), a.value.rows(piece.row, piece.row + piece.rows()).raw(), got.num_bytes()), 0)
                  << piece.name;
            }
          }
        }
      });
    }
  }
}

TEST_F(RunsOnADevice, GetOneDeviceARankAndSayWhenTheyShare) {
  const int devices = cuda::device_count();
  for (int ranks : {1, devices, devices + 1})
    run_ranks(ranks, [&](Communicator& world) {
      for (DeviceChoice choice : {DeviceChoice::kCuda, DeviceChoice::kAuto}) {
        const ChosenDevice chosen = choose_device(choice, "run.device", world);
        EXPECT_EQ(chosen.device, (Device{DeviceKind::kCuda, world.rank() % devices, nullptr}));
        EXPECT_EQ(cuda::selected_device(), world.rank() % devices);
        EXPECT_PRED2(contains, chosen.description, text("cuda:", world.rank() % devices, " ("));
        EXPECT_GT(chosen.memory_bytes, 0u);
        if (ranks <= devices) EXPECT_EQ(chosen.warning, "");
        else EXPECT_PRED2(contains, chosen.warning, text(ranks, " ranks share ", devices, " CUDA device"));
      }
      EXPECT_EQ(choose_device(DeviceChoice::kCpu, "run.device", world).device, Device::cpu());
    });
}

TEST_F(RunsOnADevice, RefuseProductsOfFewerBitsBeforeTheyStart) {
  Runs runs(kLlama);
  for (const char* device : {"run.device=cuda", "run.device=auto"}) {
    EXPECT_PRED2(contains, message_of<ConfigError>([&] { runs.run("x", {device, "run.matmul_precision=bf16"}); }),
                    "run.matmul_precision=bf16");
    EXPECT_FALSE(fs::exists(runs.folder("x")));
  }
}

}  // namespace
}  // namespace trireme::testing
