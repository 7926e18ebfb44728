// What bench/gpu/run_all measures on one CUDA device. Each part prints JSON lines.
//   gpu_bench rates                                                    products, and copies on and to the device
//   gpu_bench step   [model=gpt2|llama] [batch=16] [length=1024] [recompute=none|selective|full]
//       "ready", then one bf16 training step with f32 masters for each line of standard input, so that other programs can
//       be timed between. AdamW, gradients clipped.
//   gpu_bench curve  [model=gpt2] [device=cuda|cpu] [dtype=f32|bf16] [steps=20] [batch=4] [length=128]
//       losses and gradient norms of the same batches and weights on either device
//   gpu_bench decode [model=llama] [batch=1] [prompt=512] [tokens=64] [rounds=3]                       greedy, in bf16
// model=tiny is for tests of this program.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "base/json.h"
#include "bench/arguments.h"
#include "bench/workload.h"
#include "comm/communicator.h"
#include "inference/engine.h"
#include "model/cost.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/devices.h"
#include "tensor/gemm_table.h"
#include "tensor/memory_rate.h"
#include "tensor/threads.h"
#include "trainer/train_step.h"

namespace trireme {
namespace {

namespace json = boost::json;
constexpr Device kCuda{DeviceKind::kCuda, 0, nullptr};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void print(const json::object& line) {
  std::cout << to_json(json::value(line)) << std::endl;
}

// 1.3 billion weights, of the shape of Llama's.
ModelConfig llama_1_3b() {
  ModelConfig c = llama_134m();
  c.hidden_size = 2048;
  c.num_hidden_layers = 24;
  c.num_attention_heads = c.num_key_value_heads = 16;
  c.head_dim = 128;
  c.intermediate_size = 5504;
  return c;
}

ModelConfig model_of(const std::string& name) {
  if (name == "gpt2") return gpt2_124m();
  if (name == "llama") return llama_1_3b();
  check<ConfigError>(name == "tiny", "model=", name, " is not gpt2, llama or tiny");
  ModelConfig c = llama_134m();
  c.vocab_size = 101;
  c.hidden_size = 64;
  c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.head_dim = 32;
  c.intermediate_size = 96;
  return c;
}

// A model of one rank that trains.
struct Training {
  Training(const ModelConfig& config, DType dtype, Device device, Recompute recompute)
      : mesh(*world, {}), model(config, mesh, {}, device),
        buckets(model.parameters(), mesh, {0, int64_t{32} << 20, dtype, device}) {
    model.initialize(1);
    optimizer = std::make_unique<Optimizer>(buckets, OptimizerOptions{.weight_decay = 0.1});
    TrainStepOptions options;
    options.recompute = recompute;
    train = std::make_unique<TrainStep>(model, buckets, *optimizer, options);
  }
  std::unique_ptr<Communicator> world = make_self_communicator("world");
  Mesh mesh;
  ShardedModel model;
  ParameterBuckets buckets;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<TrainStep> train;
};

int64_t peak_bytes() { return static_cast<int64_t>(cuda::default_device_allocator(0).stats().peak_bytes); }

void rates() {
  const cuda::DeviceProperties device = cuda::device_properties(0);
  json::object line{{"part", "rates"}, {"device", device.name}};
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    line["gemm_" + std::string(name_of(dtype)) + "_flops"] = measure_gemm_rate(kCuda, 1, dtype);
  line["copy_bytes_per_s"] = measure_memory_rate(kCuda, 1, size_t{1} << 30).copy_bytes_per_s;
  const HostLinkRate link = measure_host_link_rate(kCuda);
  line["to_device_bytes_per_s"] = link.to_device;
  line["from_device_bytes_per_s"] = link.from_device;
  print(line);
}

void step(const BenchArguments& args) {
  const std::string name = args.word("model", "gpt2"), recompute = args.word("recompute", "none");
  const ModelConfig config = model_of(name);
  const int64_t batch = args.number("batch", 16), length = args.number("length", 1024);
  check<ConfigError>(recompute == "none" || recompute == "selective" || recompute == "full", "recompute=", recompute);
  Training run(config, DType::kBF16, kCuda,
               recompute == "full" ? Recompute::kFull : recompute == "selective" ? Recompute::kSelective : Recompute::kNone);
  const std::vector<TokenBatch> batches = {random_batch(batch, length, config.vocab_size, 7)};
  int64_t steps = 0;
  const auto one = [&] {
    cuda::synchronize();
    const double begin = now();
    const StepResult result = run.train->run(batches, 1e-4, ++steps);
    cuda::synchronize();
    check<Error>(!result.skipped, "step ", steps, " was skipped: loss ", result.loss, ", norm ", result.grad_norm);
    return std::pair(now() - begin, result.loss);
  };
  for (int i = 0; i < 3; ++i) one();
  print({{"part", "ready"}, {"flops_per_step", training_flops_per_token(config, length) * static_cast<double>(batch * length)},
         {"tokens", batch * length}, {"parameters", count_parameters(config).total()}});
  for (std::string asked; std::getline(std::cin, asked);) {
    const auto [seconds, loss] = one();
    print({{"part", "step"}, {"seconds", seconds}, {"loss", loss}, {"peak_bytes", peak_bytes()}});
  }
}

void curve(const BenchArguments& args) {
  const std::string where = args.word("device", "cuda"), type = args.word("dtype", "f32");
  check<ConfigError>(where == "cuda" || where == "cpu", "device=", where, " is neither cuda nor cpu");
  check<ConfigError>(type == "f32" || type == "bf16", "dtype=", type, " is neither f32 nor bf16");
  const ModelConfig config = model_of(args.word("model", "gpt2"));
  Training run(config, type == "f32" ? DType::kF32 : DType::kBF16, where == "cuda" ? kCuda : Device::cpu(),
               Recompute::kNone);
  const int64_t batch = args.number("batch", 4), length = args.number("length", 128), steps = args.number("steps", 20);
  json::array losses, norms;
  for (int64_t i = 1; i <= steps; ++i) {
    // Few batches, so that there is something to learn.
    const StepResult r = run.train->run({random_batch(batch, length, config.vocab_size, 7 + i % 4)}, 3e-4, i);
    losses.push_back(r.loss);
    norms.push_back(r.grad_norm);
  }
  print({{"part", "curve"}, {"device", where}, {"dtype", type}, {"losses", losses}, {"grad_norms", norms}});
}

void decode(const BenchArguments& args) {
  const ModelConfig config = model_of(args.word("model", "llama"));
  const int64_t batch = args.number("batch", 1), prompt = args.number("prompt", 512), tokens = args.number("tokens", 64);
  check<ConfigError>(batch >= 1 && prompt >= 1 && tokens >= 2, "batch=", batch, " prompt=", prompt, " tokens=", tokens);
  const auto world = make_self_communicator("world");
  const Mesh mesh(*world, {});
  ShardedModel model(config, mesh, {}, kCuda);
  allocate_values(model.parameters(), DType::kBF16, kCuda);
  model.initialize(1);
  EngineOptions options;
  options.max_sequences = batch;
  options.max_step_tokens = batch * prompt;  // all in one step, so that decoding begins with all of them
  options.cache_tokens = batch * (prompt + tokens + options.block_size);
  std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(batch));
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t i = 0; i < prompt; ++i)
      prompts[static_cast<size_t>(s)].push_back(static_cast<int32_t>((i * 7919 + s * 104729) % config.vocab_size));
  SamplingOptions greedy;
  greedy.temperature = 0;
  greedy.max_tokens = tokens;
  greedy.ignore_eos = true;
  std::vector<double> prefills, steps;
  for (int64_t round = 0; round <= args.number("rounds", 3); ++round) {
    Engine engine(model, options);
    int64_t seen = 0;
    double first = 0;
    const double begin = now();
    engine.generate(prompts, greedy, [&](size_t, int32_t) {
      if (++seen == batch) first = now() - begin;
      return false;
    });
    const double all = now() - begin;
    if (round == 0) continue;
    prefills.push_back(first);
    steps.push_back((all - first) / static_cast<double>(tokens - 1));
  }
  const ParameterCounts n = count_parameters(config);
  const double weights = static_cast<double>(n.layers + config.vocab_size * config.hidden_size);
  const double cached = static_cast<double>(batch) * (static_cast<double>(prompt) + static_cast<double>(tokens) / 2) * 2 *
                        static_cast<double>(config.num_hidden_layers * config.num_key_value_heads * config.head_dim);
  print({{"part", "decode"}, {"batch", batch}, {"prompt", prompt}, {"prefill_s", median(prefills)},
         {"step_s", median(steps)}, {"tokens_per_s", static_cast<double>(batch) / median(steps)},
         {"bytes_per_step", 2 * (weights + cached)}, {"peak_bytes", peak_bytes()}});
}

int run(int argc, char** argv) {
  const std::string part = argc > 1 ? argv[1] : "";
  const BenchArguments args(argc - 1, argv + 1, {"model", "batch", "length", "recompute", "device", "dtype", "steps",
                                                 "prompt", "tokens", "rounds"});
  set_num_threads(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  const bool on_cpu = part == "curve" && args.word("device", "cuda") == "cpu";
  if (!on_cpu && cuda::device_count() == 0) {
    std::fprintf(stderr, "gpu_bench: no device: %s\n", cuda::unavailable_reason().c_str());
    return 3;
  }
  if (part == "rates") return rates(), 0;
  if (part == "step") return step(args), 0;
  if (part == "curve") return curve(args), 0;
  if (part == "decode") return decode(args), 0;
  throw ConfigError("give a part: rates, step, curve or decode");
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_bench: %s\n", e.what());
    return 2;
  }
}
