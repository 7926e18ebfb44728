// One training step of the GPT-2 124M shape in f32 with AdamW, by parts, at any layout:
//   step_bench [batch=4] [length=64] [steps=7] [zero=0] [recompute=none|selective|full] [clip=1]
//              [precision=f32|bf16x3|bf16|f16] [dtype=f32|bf16|f16] [device=cpu|cuda] [pin=off|on]   one process
//   mpirun -np 2 step_bench batch=2 ...                                                          data parallel, batch a rank
// On CUDA devices, one a rank, memory is that of the device's tensors.
// Prints the median step, tokens/s of all ranks, what of the step was forward and backward, reductions, update, and the
// memory: counted before the run, tensors at their peak, resident at its peak. clip=0 does not clip gradients.
// paced=FOLDER takes one step for each line that rank R reads from FOLDER/R, and rank 0 answers with its milliseconds (see
// peers/compare_steps.py): ranks that are not asked sleep, so that other programs can be timed between.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

#include "bench/arguments.h"
#include "bench/workload.h"
#include "comm/mpi.h"
#include "model/cost.h"
#include "tensor/allocator.h"
#include "tensor/cuda/allocator.h"
#include "tensor/gemm_table.h"
#include "tensor/threads.h"
#include "trainer/device.h"
#include "trainer/rank_cores.h"
#include "trainer/train_step.h"

namespace trireme {
namespace {

// VmHWM: the most memory this process has held.
double peak_resident_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int run(Communicator& world, const BenchArguments& args) {
  const auto number = [&](const char* name, int64_t otherwise) { return args.number(name, otherwise); };
  const int64_t batch = number("batch", 4), length = number("length", 64), steps = number("steps", 7);
  set_num_threads(static_cast<int>(number("threads", threads_for(world.size()))));
  std::optional<PinnedThreads> pinned;
  if (const std::string pin = args.word("pin", "off"); pin != "off") {
    check<ConfigError>(pin == "on", "pin=", pin, " is neither on nor off");
    const RankCores cores = rank_cores(world);
    const std::string problem = why_not_pinned(cores, PinMode::kOn, num_threads());
    check<ConfigError>(problem.empty(), "pin=on: ", problem);
    pinned.emplace(cores.share.cores, num_threads());
  }
  MeshShape shape;
  shape.tp = static_cast<int>(number("tensor", 1));
  shape.pp = static_cast<int>(number("pipeline", 1));
  shape.dp = world.size() / shape.tp / shape.pp;
  const Mesh mesh(world, shape);
  const ModelConfig config = gpt2_124m();
  const std::string on = args.word("device", "cpu"), type = args.word("dtype", "f32");
  check<ConfigError>(on == "cpu" || on == "cuda", "device=", on, " is not cpu or cuda");
  const Device device =
      choose_device(on == "cuda" ? DeviceChoice::kCuda : DeviceChoice::kCpu, "device", world).device;
  const DType dtype = type == "bf16" ? DType::kBF16 : type == "f16" ? DType::kF16 : DType::kF32;
  check<ConfigError>(text(dtype) == type, "dtype=", type, " is not f32, bf16 or f16");
  ShardedModel model(config, mesh, {}, device);
  ParameterBuckets buckets(model.parameters(), mesh,
                           {static_cast<int>(number("zero", 0)), number("bucket_mb", 32) << 20, dtype, device});
  model.initialize(1);
  Optimizer optimizer(buckets, {.weight_decay = 0.1});
  TrainStepOptions options;
  options.scale_loss = dtype == DType::kF16;
  options.clip_grad_norm = static_cast<double>(number("clip", 1));
  const std::string recompute = args.word("recompute", "none");
  options.recompute = recompute == "full" ? Recompute::kFull
                      : recompute == "selective" ? Recompute::kSelective : Recompute::kNone;
  TrainStep train(model, buckets, optimizer, options);
  const std::string precision = args.word("precision", "f32");
  GemmTable table;
  for (MatmulPrecision p : {MatmulPrecision::kBf16x3, MatmulPrecision::kBf16, MatmulPrecision::kF16})
    if (name_of(p) == precision) table.set_precision(p);
  check<ConfigError>(name_of(table.precision()) == precision, "precision=", precision, " is not f32, bf16x3, bf16 or f16");
  use_gemm_table(table);
  const int64_t micro_batches = number("micro_batches", 1);
  std::vector<TokenBatch> batches;
  for (int64_t m = 0; m < micro_batches; ++m)
    batches.push_back(random_batch(batch, length, config.vocab_size, 7 + m + 100 * mesh.dp().rank()));
  std::vector<double> total, work, reduce, update;
  if (const std::string folder = args.word("paced", ""); !folder.empty()) {
    for (int64_t i = 1; i <= 2; ++i) train.run(batches, 1e-4, i);
    world.barrier();
    if (world.rank() == 0) {
      std::puts("ready");
      std::fflush(stdout);
    }
    std::ifstream asked(folder + "/" + std::to_string(world.rank()));
    check<FileError>(asked.good(), folder, "/", world.rank(), ": cannot be opened");
    int64_t step = 3;
    for (std::string line; std::getline(asked, line); ++step) {
      world.barrier();
      const auto begin = std::chrono::steady_clock::now();
      if (pinned) pinned->renew();
      train.run(batches, 1e-4, step);
      world.barrier();
      const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (world.rank() != 0) continue;
      std::printf("%.3f %.0f\n", s * 1e3, peak_resident_mib());
      std::fflush(stdout);
    }
    return 0;
  }
  for (int64_t i = 0; i < steps + 2; ++i) {
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    if (pinned) pinned->renew();
    const StepResult r = train.run(batches, 1e-4, i + 1);
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i < 2) continue;
    total.push_back(s);
    work.push_back(r.pipeline.total_s);
    reduce.push_back(r.reduce_s);
    update.push_back(r.optimizer_s);
  }
  ActivationPlan plan;
  plan.tokens = batch * length;
  plan.layers = static_cast<double>(config.num_hidden_layers) / shape.pp;
  plan.head = shape.pp == 1;
  plan.live = static_cast<double>(std::min<int64_t>(micro_batches, shape.pp));
  plan.tensor_ranks = shape.tp;
  plan.recompute = static_cast<int>(options.recompute);
  plan.bytes = static_cast<int>(size_of(dtype));
  // Weights and gradients, and two moments and perhaps a master a parameter.
  const double weight = plan.bytes, state = dtype == DType::kF32 ? 8 : 12;
  const double held = static_cast<double>(count_parameters(config).total()) / (shape.tp * shape.pp) *
                      (number("zero", 0) == 2   ? weight + (4 + state) / shape.dp
                       : number("zero", 0) == 1 ? weight + 4 + state / shape.dp
                                                : weight + 4 + state);
  const AllocatorStats tensors = (device.kind == DeviceKind::kCpu ? default_cpu_allocator()
                                                                  : cuda::default_device_allocator(device.index)).stats();
  if (world.rank() == 0) {
    const double step = median(total);
    const double tokens = static_cast<double>(batch * length * micro_batches * shape.dp);
    std::printf("%s, B=%ld T=%ld a rank, %d threads a rank: step %.0f ms (forward and backward %.0f, waiting for "
                "reductions %.0f, update %.0f), %.1f tokens/s; memory in MiB: counted %.0f, of these activations %.0f; "
                "tensors at their peak %.0f, resident %.0f\n",
                to_string(shape).c_str(), static_cast<long>(batch), static_cast<long>(length), num_threads(), step * 1e3,
                median(work) * 1e3, median(reduce) * 1e3, median(update) * 1e3, tokens / step,
                (held + activation_bytes(config, plan)) / (1 << 20), activation_bytes(config, plan) / (1 << 20),
                static_cast<double>(tensors.peak_bytes) / (1 << 20), peak_resident_mib());
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    const trireme::BenchArguments args(argc, argv, {"batch", "length", "steps", "threads", "tensor", "pipeline", "zero",
                                                    "bucket_mb", "recompute", "micro_batches", "clip", "paced", "precision", "dtype", "device", "pin"});
    if (!trireme::started_by_mpi_launcher()) {
      auto world = trireme::make_self_communicator("world");
      return trireme::run(*world, args);
    }
    trireme::MpiEnvironment mpi;
    auto world = trireme::make_mpi_world();
    return trireme::run(*world, args);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "step_bench: %s\n", e.what());
    return 2;
  }
}
