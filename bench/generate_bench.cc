// Generation with the Llama 134M shape and random weights: prefill and decoding, against what the machine can do.
//   generate_bench [dtype=f32|bf16] [prompt=512] [tokens=32] [batch=1] [threads=N] [rounds=3]
// Prefill's floor: 2 operations a weight and token at the measured GEMM rate. Decoding's: each weight read once a step
// at the measured read rate of memory (one pass of sum_of_squares over 512 MiB).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/arguments.h"
#include "comm/communicator.h"
#include "inference/engine.h"
#include "model/cost.h"
#include "tensor/gemm_table.h"
#include "tensor/ops/reduce.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

ModelConfig llama_134m() {
  ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = 32000;
  c.hidden_size = 768;
  c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 12;
  c.head_dim = 64;
  c.intermediate_size = 2048;
  c.max_position_embeddings = 2048;
  c.hidden_act = "silu";
  return c;
}

double read_rate() {
  const Tensor t = zeros({int64_t{128} << 20}, DType::kF32);
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {
    const auto begin = Clock::now();
    if (sum_of_squares(t) != 0) std::abort();
    best = std::min(best, since(begin));
  }
  return static_cast<double>(t.num_bytes()) / best;
}

int run(const BenchArguments& args) {
  const auto number = [&](const char* name, int64_t otherwise) { return args.number(name, otherwise); };
  const int64_t prompt = number("prompt", 512), tokens = number("tokens", 32), batch = number("batch", 1);
  set_num_threads(static_cast<int>(number("threads", threads_for(1))));
  const DType dtype = args.word("dtype", "f32") == "bf16" ? DType::kBF16 : DType::kF32;
  const auto world = make_self_communicator("world");
  const Mesh mesh(*world, {});
  ShardedModel model(llama_134m(), mesh, {});
  allocate_values(model.parameters(), dtype, Device::cpu());
  model.initialize(1);
  EngineOptions options;
  options.max_sequences = batch;
  options.cache_tokens = batch * (prompt + tokens + options.block_size);
  Engine engine(model, options);
  std::vector<std::vector<int32_t>> prompts(batch);
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t i = 0; i < prompt; ++i) prompts[s].push_back(static_cast<int32_t>((i * 7919 + s * 104729) % 32000));
  SamplingOptions greedy;
  greedy.temperature = 0;
  greedy.max_tokens = tokens;

  std::vector<double> prefill, decode;
  for (int64_t round = 0; round < number("rounds", 3) + 1; ++round) {
    const auto begin = Clock::now();
    double first = 0;
    int64_t seen = 0;
    engine.generate(prompts, greedy, [&](size_t, int32_t) {
      if (++seen == batch) first = since(begin);  // all prompts are through
      return false;
    });
    if (!round) continue;
    prefill.push_back(first);
    decode.push_back((since(begin) - first) / static_cast<double>(tokens - 1));
  }
  const ParameterCounts n = count_parameters(model.config());
  const double weights = static_cast<double>(n.layers + n.head);
  const double gemm = measure_gemm_rate(num_threads(), dtype), read = read_rate();
  const double prefill_floor = 2 * static_cast<double>(n.layers) * static_cast<double>(prompt * batch) / gemm;
  const double decode_floor = weights * static_cast<double>(size_of(dtype)) / read;
  std::printf("%s, %d threads, GEMM %.0f GF/s, memory read %.1f GB/s\n", std::string(name_of(dtype)).c_str(), num_threads(),
              gemm / 1e9, read / 1e9);
  std::printf("prefill %ld x %ld tokens: %.0f tokens/s, %.2f of the GEMM rate\n", static_cast<long>(batch),
              static_cast<long>(prompt), static_cast<double>(prompt * batch) / median(prefill),
              prefill_floor / median(prefill));
  std::printf("decode %ld together: %.1f tokens/s, %.2f of the read rate\n", static_cast<long>(batch),
              static_cast<double>(batch) / median(decode), decode_floor / median(decode));
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run({argc, argv, {"dtype", "prompt", "tokens", "batch", "threads", "rounds"}});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "generate_bench: %s\n", e.what());
    return 2;
  }
}
