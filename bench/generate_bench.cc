// Generation with the Llama 134M shape: prefill and decoding of one sequence, then of many together, against
// what the machine can do. Everything is measured in turns, so that a busy machine slows all of it alike.
//   generate_bench [dtype=f32|bf16] [prompt=512] [tokens=32] [batch=32] [batch_prompt=32] [threads=N]
//                  [rounds=5] [model=FOLDER] [square=1536]
// model: a folder with config.json and weights, which are mapped as `trireme generate` does; without it
// weights are random.
//
// Three floors, each measured in every round:
//   products   the model's matrix products alone, with its weights and as many rows
//   GEMM rate  2 operations a weight and row at the rate of a square product of `square` rows
//   read rate  each weight, and each cached key and value, read once a step, at the rate of a pass over 512 MiB
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/arguments.h"
#include "bench/workload.h"
#include "comm/communicator.h"
#include "inference/engine.h"
#include "model/cost.h"
#include "model/load_weights.h"
#include "tensor/gemm.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// The floors' own work.
class Machine {
 public:
  Machine(const ShardedModel& model, DType dtype, int64_t square)
      : model_(model),
        large_(zeros({int64_t{128} << 20}, DType::kF32)),
        a_(noise({square, square}, dtype)),
        b_(noise({square, square}, dtype)),
        c_(empty({square, square}, dtype)) {}

  // A number of each line; every thread follows eight runs at once, which memory serves faster than one.
  double read_rate() const {
    constexpr int64_t kRuns = 8, kLine = 16;
    const auto begin = Clock::now();
    const int64_t share = large_.numel() / num_threads() / (kRuns * kLine) * kLine;  // of a run
    const float* data = large_.data<float>();
    float total = 0;
#pragma omp parallel for schedule(static) reduction(+ : total)
    for (int64_t t = 0; t < num_threads(); ++t) {
      float sums[kRuns] = {};
      for (int64_t i = 0; i < share; i += kLine)
        for (int64_t r = 0; r < kRuns; ++r) sums[r] += data[(t * kRuns + r) * share + i];
      for (float s : sums) total += s;
    }
    if (total != 0) std::abort();
    return static_cast<double>(share * kRuns * num_threads() * 4) / since(begin);
  }
  double gemm_rate() const {
    const auto begin = Clock::now();
    const int64_t n = a_.dim(0);
    gemm({false, true, n, n, n, a_.dtype(), a_.dtype()}, 1, a_.raw(), n, b_.raw(), n, 0, c_.raw(), n);
    return 2.0 * static_cast<double>(n * n * n) / since(begin);
  }
  // Seconds of the blocks' products with `rows` rows, and the output layer's with `head_rows`.
  double products(int64_t rows, int64_t head_rows) const {
    const ModelConfig& config = model_.config();
    double seconds = 0;
    for (const auto& p : model_.parameters().all()) {
      if (p->shape.rank() != 2) continue;
      const bool vocabulary = p->shape[0] == config.vocab_size;
      if (vocabulary && p->pieces[0].name.find("embed") != std::string::npos && !config.tie_word_embeddings)
        continue;
      const int64_t m = vocabulary ? head_rows : rows, n = p->shape[0], k = p->shape[1];
      const Tensor x = noise({m, k}, p->value.dtype()), y = empty({m, n}, p->value.dtype());
      const auto begin = Clock::now();
      gemm({false, true, m, n, k, x.dtype(), x.dtype()}, 1, x.raw(), k, p->value.raw(), k, 0, y.raw(), n);
      seconds += since(begin);
    }
    return seconds;
  }

 private:
  static Tensor noise(const Shape& shape, DType dtype) {
    Tensor t = empty(shape, DType::kF32);
    for (int64_t i = 0; i < t.numel(); ++i)
      t.data<float>()[i] = static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 22) / 1024.0f - 0.5f;
    return dtype == DType::kF32 ? t : cast(t, dtype);
  }

  const ShardedModel& model_;
  Tensor large_, a_, b_, c_;
};

// `batch` sequences that start, and decode, together.
struct Scenario {
  int64_t batch, prompt, tokens;
  std::vector<double> prefill, decode, products_prefill, products_decode, gemm,
      read;  // seconds (a step), rates

  void round(const ShardedModel& model, const Machine& machine, bool counts) {
    EngineOptions options;
    options.max_sequences = batch;
    options.max_step_tokens = batch * prompt;  // all in one step, so that decoding begins with all of them
    options.cache_tokens = batch * (prompt + tokens + options.block_size);
    Engine engine(model, options);
    std::vector<std::vector<int32_t>> prompts(batch);
    for (int64_t s = 0; s < batch; ++s)
      for (int64_t i = 0; i < prompt; ++i)
        prompts[s].push_back(static_cast<int32_t>((i * 7919 + s * 104729) % model.config().vocab_size));
    SamplingOptions greedy;
    greedy.temperature = 0;
    greedy.max_tokens = tokens;
    greedy.ignore_eos = true;

    const double reading = machine.read_rate(), multiplying = machine.gemm_rate();
    const double wide = machine.products(batch * prompt, batch), narrow = machine.products(batch, batch);
    const auto begin = Clock::now();
    double first = 0;
    int64_t seen = 0;
    engine.generate(prompts, greedy, [&](size_t, int32_t) {
      if (++seen == batch) first = since(begin);
      return false;
    });
    const double all = since(begin);
    if (!counts) return;
    read.push_back(reading);
    gemm.push_back(multiplying);
    products_prefill.push_back(wide);
    products_decode.push_back(narrow);
    prefill.push_back(first);
    decode.push_back((all - first) / static_cast<double>(tokens - 1));
  }

  void print(const ModelConfig& config, DType dtype) const {
    const ParameterCounts n = count_parameters(config);
    const double head = static_cast<double>(config.vocab_size * config.hidden_size);
    const double layers = static_cast<double>(n.layers), b = static_cast<double>(batch);
    const double cached =
        b * (static_cast<double>(prompt) + static_cast<double>(tokens) / 2) * 2 *
        static_cast<double>(config.num_hidden_layers * config.num_key_value_heads * config.head_dim);
    const double bytes = static_cast<double>(size_of(dtype)) * (layers + head + cached);
    const double prefill_work = 2 * b * (layers * static_cast<double>(prompt) + head);
    std::printf("prefill %ld x %ld: %.0f tokens/s, %.2f of products, %.2f of GEMM rate %.0f GF/s\n",
                static_cast<long>(batch), static_cast<long>(prompt),
                b * static_cast<double>(prompt) / median(prefill), median(products_prefill) / median(prefill),
                prefill_work / median(gemm) / median(prefill), median(gemm) / 1e9);
    std::printf(
        "decode %ld: %.1f tokens/s, %.2f of products, %.2f of GEMM rate, %.2f of read rate %.1f GB/s\n",
        static_cast<long>(batch), b / median(decode), median(products_decode) / median(decode),
        2 * b * (layers + head) / median(gemm) / median(decode), bytes / median(read) / median(decode),
        median(read) / 1e9);
    std::fflush(stdout);
  }
};

int run(const BenchArguments& args) {
  set_num_threads(static_cast<int>(std::max<int64_t>(1, args.number("threads", threads_for(1)))));
  const std::string type = args.word("dtype", "f32"), folder = args.word("model", "");
  check<ConfigError>(type == "f32" || type == "bf16", "dtype=", type, " is neither f32 nor bf16");
  const DType dtype = type == "bf16" ? DType::kBF16 : DType::kF32;
  const auto number = [&](const char* name, int64_t otherwise) {
    const int64_t value = args.number(name, otherwise);
    check<ConfigError>(value >= 1, name, "=", value, " is below 1");
    return value;
  };
  const auto world = make_self_communicator("world");
  const Mesh mesh(*world, {});
  ShardedModel model(folder.empty() ? llama_134m() : ModelConfig::from_directory(folder), mesh, {});
  if (folder.empty()) {
    allocate_values(model.parameters(), dtype, Device::cpu());
    model.initialize(1);
  } else {
    map_weights(model, WeightSource::open(folder), dtype);
  }
  const int64_t tokens = number("tokens", 32), rounds = number("rounds", 5);
  check<ConfigError>(tokens >= 2, "tokens=", tokens,
                     " leaves nothing to decode after the first; give 2 or more");
  const Machine machine(model, dtype, number("square", 1536));
  Scenario scenarios[] = {{1, number("prompt", 512), tokens, {}, {}, {}, {}, {}, {}},
                          {number("batch", 32), number("batch_prompt", 32), tokens, {}, {}, {}, {}, {}, {}}};
  for (int64_t round = 0; round <= rounds; ++round)
    for (Scenario& s : scenarios) s.round(model, machine, round > 0);
  std::printf("%s, %d threads, medians of %ld rounds\n", std::string(name_of(dtype)).c_str(), num_threads(),
              static_cast<long>(rounds));
  for (const Scenario& s : scenarios) s.print(model.config(), dtype);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(
        {argc,
         argv,
         {"dtype", "prompt", "tokens", "batch", "batch_prompt", "threads", "rounds", "model", "square"}});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "generate_bench: %s\n", e.what());
    return 2;
  }
}
