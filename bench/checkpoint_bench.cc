// What a checkpoint of the GPT-2 124M shape (weights and two moments, 1.4 GiB in f32) costs a training run:
//   checkpoint_bench FOLDER [batch=4] [length=64] [saves=3] [threads=all]
//   mpirun -np 2 --bind-to none checkpoint_bench FOLDER ...                  data parallel with ZeRO-1, batch a rank
// Takes plain steps and steps while a save is being written, in turns. Prints the copy that training waits for beside a
// copy of the same bytes between buffers that exist, and what steps take longer while files are written and hashed. FOLDER
// is made, and removed at the end; it must not exist.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "bench/arguments.h"
#include "bench/row.h"
#include "bench/workload.h"
#include "comm/mpi.h"
#include "tensor/threads.h"
#include "trainer/checkpoint.h"
#include "trainer/train_step.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Seconds of a threaded copy of so many bytes, of buffers that were written before.
double copy_s(int64_t bytes) {
  const Tensor from = zeros({bytes / 4}, DType::kF32), to = zeros({bytes / 4}, DType::kF32);
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) {
    const Clock::time_point begin = Clock::now();
#pragma omp parallel for
    for (int64_t part = 0; part < 64; ++part) {
      const int64_t first = from.numel() * part / 64, last = from.numel() * (part + 1) / 64;
      std::memcpy(to.data<float>() + first, from.data<float>() + first, static_cast<size_t>(last - first) * 4);
    }
    times.push_back(since(begin));
  }
  return median(times);
}

int run(Communicator& world, const std::string& folder, const BenchArguments& args) {
  const int64_t batch = args.number("batch", 4), length = args.number("length", 64), saves = args.number("saves", 3);
  set_num_threads(static_cast<int>(args.number("threads", threads_for(world.size()))));
  const bool here = world.rank() == 0;
  check<ConfigError>(!here || !std::filesystem::exists(folder), folder, ": exists; name a folder that does not");
  MeshShape shape;
  shape.dp = world.size();
  const Mesh mesh(world, shape);
  const ModelConfig config = gpt2_124m();
  ShardedModel model(config, mesh, {});
  ParameterBuckets buckets(model.parameters(), mesh, {world.size() > 1 ? 1 : 0, 32 << 20, DType::kF32, Device::cpu()});
  model.initialize(1);
  Optimizer optimizer(buckets, {.weight_decay = 0.1});
  TrainStep train(model, buckets, optimizer, {});
  const std::vector<TokenBatch> batches = {random_batch(batch, length, config.vocab_size, 7 + mesh.dp().rank())};
  double copied = 0, written = 0, bytes = 0, plain = 0, beside = 0;
  {
    CheckpointOptions options;
    options.dir = folder;
    options.keep_last = 1;
    Checkpointer checkpointer(model, buckets, optimizer, options);
    RunState state;
    std::vector<double> idle, copies, writes, extra, during;
        const auto step = [&] {
      world.barrier();
      const Clock::time_point begin = Clock::now();
      train.run(batches, 1e-4, ++state.step);
      world.barrier();
      return since(begin);
    };
    step(), step();
    for (int64_t i = 0; i < saves; ++i) {
      for (int k = 0; k < 5; ++k) idle.push_back(step());
      Clock::time_point begin = Clock::now();
      checkpointer.save(state, false);
      copies.push_back(since(begin));
      std::vector<double> busy;
      for (std::optional<SaveOutcome> outcome; !outcome;) {
        busy.push_back(step());
        begin = Clock::now();
        outcome = checkpointer.poll();
        busy.back() += since(begin);
        if (!outcome) continue;
        check<FileError>(outcome->ok, outcome->message);
        writes.push_back(outcome->write_s);
        bytes = static_cast<double>(outcome->num_bytes);
      }
      during.push_back(static_cast<double>(busy.size()));
      extra.push_back(std::accumulate(busy.begin(), busy.end(), 0.0) / static_cast<double>(busy.size()));
    }
    plain = median(idle), copied = median(copies), written = median(writes), beside = median(extra);
    if (here)
      std::printf("step %.0f ms; a save of %.0f MB: copy %.0f ms, written in %.1f s beside %.0f steps of %.0f ms: %.2f of a "
                  "plain step each\n",
                  plain * 1e3, bytes / 1e6, copied * 1e3, written, median(during), beside * 1e3, beside / plain);
  }
  if (here) {
    std::filesystem::remove_all(folder);
    const double floor = copy_s(static_cast<int64_t>(bytes) / world.size());
    print_row({.bench = "checkpoint", .what = "copy of 124M weights and moments that a step waits for", .ours_s = copied,
               .floor_s = floor});
    print_row({.bench = "checkpoint", .what = "a step while files are written, against a step", .ours_s = beside, .floor_s = plain});
  }
  world.barrier();
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    trireme::check<trireme::ConfigError>(argc > 1 && !std::strchr(argv[1], '='), "the first word is the folder to write to");
    const trireme::BenchArguments args(argc - 1, argv + 1, {"batch", "length", "saves", "threads"});
    if (!trireme::started_by_mpi_launcher()) {
      auto world = trireme::make_self_communicator("world");
      return trireme::run(*world, argv[1], args);
    }
    trireme::MpiEnvironment mpi;
    auto world = trireme::make_mpi_world();
    return trireme::run(*world, argv[1], args);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "checkpoint_bench: %s\n", e.what());
    return 2;
  }
}
