#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "data/tokenizer_files.h"
#include "inference/engine.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/text_output.h"
#include "model/load_weights.h"
#include "tensor/threads.h"
#include "trainer/agreed.h"
#include "trainer/device.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme generate --model DIR --prompt TEXT [--prompt TEXT ...] [OPTIONS]\n\n"
    "Writes what the model goes on with. DIR is a Hugging Face directory or a checkpoint (runs/x/latest). Under mpirun the\n"
    "model is split over the ranks. How fast it was is said on stderr at the end.\n\n"
    "  --prompts-file F        prompts from a file, one a line\n"
    "  --max-tokens N          new tokens at most (128)\n"
    "  --temperature F         0: always the likeliest token (0.8)\n"
    "  --top-k N --top-p F --min-p F --repetition-penalty F    as they are commonly defined (off)\n"
    "  --seed N                the same seed gives the same text at every layout (0)\n"
    "  --stop TEXT             end before this text; may be given several times\n"
    "  --ignore-eos            go on after the model's end token\n"
    "  --tensor N --pipeline N how the ranks share the model (tensor: all of them)\n"
    "  --threads N             of each rank (the host's cores shared by its ranks)\n"
    "  --dtype f32|bf16|f16    of weights and cache (f32)\n"
    "  --device auto|cpu|cuda  as run.device of a run (auto)\n"
    "  --ids                   print token ids, one line a prompt, instead of text\n\n"
    "examples:\n"
    "  trireme generate --model runs/quickstart/latest --prompt \"In the beginning\"\n"
    "  mpirun -np 4 trireme generate --model llama/ --tensor 2 --pipeline 2 --prompt \"Once\" --temperature 0\n";

struct Request {
  std::vector<std::string> prompts;
  SamplingOptions sampling;
  bool ids = false;
};

Request read_request(const Arguments& args) {
  Request r;
  r.prompts = args.all("prompt");
  if (const auto path = args.value("prompts-file")) {
    std::ifstream in(*path);
    check<ConfigError>(in.good(), "--prompts-file=", *path, ": cannot be read");
    for (std::string line; std::getline(in, line);)
      if (!line.empty()) r.prompts.push_back(line);
  }
  check<ConfigError>(!r.prompts.empty(), "generate: no prompt; give --prompt or --prompts-file");
  r.sampling.max_tokens = args.integer("max-tokens", 128, 1, 1 << 24);
  r.sampling.temperature = args.number("temperature", 0.8, 0, 100);
  r.sampling.top_k = args.integer("top-k", 0, 0, 1 << 28);
  r.sampling.top_p = args.number("top-p", 1, 0, 1);
  r.sampling.min_p = args.number("min-p", 0, 0, 1);
  r.sampling.repetition_penalty = args.number("repetition-penalty", 1, 0, 100);
  r.sampling.seed = static_cast<uint64_t>(args.integer("seed", 0, 0, INT64_MAX));
  r.sampling.stop = args.all("stop");
  r.sampling.ignore_eos = args.has("ignore-eos");
  r.sampling.validate();
  r.ids = args.has("ids");
  return r;
}

DeviceChoice device_choice(const std::string& name) {
  if (name == "auto") return DeviceChoice::kAuto;
  check<ConfigError>(name == "cpu" || name == "cuda", "--device=", name, "; use auto, cpu or cuda");
  return name == "cpu" ? DeviceChoice::kCpu : DeviceChoice::kCuda;
}

void print_ids(const std::vector<int32_t>& ids) {
  for (size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
  std::cout << '\n';
}

using Clock = std::chrono::steady_clock;
double seconds(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

// When tokens came. Rates count prompts until each of them had its first token, and decoding from there on.
struct Timing {
  Clock::time_point start, loaded, first{}, prefilled{}, last{};
  size_t waiting;  // sequences that have no token yet
  int64_t decoded = 0;

  void token(bool sequences_first) {
    const auto now = last = Clock::now();
    if (first == Clock::time_point{}) first = now;
    if (sequences_first && --waiting == 0) prefilled = now;
    if (waiting == 0 && !sequences_first) ++decoded;
  }
  void print(int64_t prompt_tokens) const {
    if (first == Clock::time_point{}) return;  // an end token at once
    std::fprintf(stderr, "first token after %.3f s, %.3f s of it loading", seconds(start, first), seconds(start, loaded));
    if (waiting == 0) {
      std::fprintf(stderr, "; %lld prompt tokens, %.1f a second", static_cast<long long>(prompt_tokens),
                   static_cast<double>(prompt_tokens) / seconds(loaded, prefilled));
      if (decoded)
        std::fprintf(stderr, "; %.1f tokens a second after it", static_cast<double>(decoded) / seconds(prefilled, last));
    }
    std::fputc('\n', stderr);
  }
};

// One prompt streams as it comes; several are printed whole, each with its prompt, once all are done.
int generate(Communicator& world, const Arguments& args, Clock::time_point start) {
  Request request;
  std::string dir;
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<WeightSource> weights;
  MeshShape shape;
  DType dtype = DType::kF32;
  DeviceChoice device = DeviceChoice::kAuto;
  agreed(world, [&] {
    request = read_request(args);
    dir = args.required("model");
    config = ModelConfig::from_directory(dir);
    tokenizer = std::make_unique<Tokenizer>(load_tokenizer(dir));
    weights = std::make_unique<WeightSource>(WeightSource::open(dir));
    shape.pp = static_cast<int>(args.integer("pipeline", 1, 1, 1 << 16));
    shape.tp = static_cast<int>(args.integer("tensor", std::max(1, world.size() / shape.pp), 1, 1 << 16));
    const std::string name = args.value("dtype").value_or("f32");
    check<ConfigError>(name == "f32" || name == "bf16" || name == "f16", "--dtype=", name, "; use f32, bf16 or f16");
    dtype = name == "f32" ? DType::kF32 : name == "bf16" ? DType::kBF16 : DType::kF16;
    device = device_choice(args.value("device").value_or("auto"));
    const int threads = static_cast<int>(args.integer("threads", 0, 0, 4096));
    set_num_threads(threads ? threads : threads_for(world.size()));
    check<ConfigError>(tokenizer->vocab_size() <= config.vocab_size, dir, ": the tokenizer has ",
                       tokenizer->vocab_size(), " tokens, the model ", config.vocab_size);
  });
  const ChosenDevice place = choose_device(device, "--device", world);
  if (world.rank() == 0 && !place.warning.empty()) std::fprintf(stderr, "warning: %s\n", place.warning.c_str());
  const Mesh mesh(world, shape);
  const ShardedModel model(config, mesh, {}, place.device);
  agreed(world, [&] { map_weights(model, *weights, dtype); });

  std::vector<std::vector<int32_t>> prompts;
  int64_t longest = 0;
  for (const std::string& p : request.prompts) {
    prompts.push_back(tokenizer->encode(p));
    longest = std::max(longest, static_cast<int64_t>(prompts.back().size()));
  }
  EngineOptions options;
  options.max_sequences = std::min<int64_t>(32, static_cast<int64_t>(prompts.size()));
  const int64_t each = std::min(config.max_position_embeddings, longest + request.sampling.max_tokens);
  options.cache_tokens = options.max_sequences * (each + options.block_size);
  Engine engine(model, options);

  const bool shows = world.rank() == 0, streams = shows && prompts.size() == 1 && !request.ids;
  std::vector<TextOutput> outputs;
  std::vector<std::string> texts(prompts.size());
  for (const auto& prompt : prompts) {
    outputs.emplace_back(*tokenizer, request.sampling.stop);
    for (int32_t id : prompt) outputs.back().begin_after(id);
  }
  if (streams) std::cout << request.prompts[0] << std::flush;
  Timing timing{start, Clock::now(), {}, {}, {}, prompts.size()};
  std::vector<bool> began(prompts.size());
  const auto results = engine.generate(prompts, request.sampling, [&](size_t sequence, int32_t id) {
    timing.token(!began[sequence]);
    began[sequence] = true;
    const std::string more = outputs[sequence].push(id);
    texts[sequence] += more;
    if (streams) std::cout << more << std::flush;
    return outputs[sequence].stopped() || !std::cout.good();
  });
  if (!shows) return 0;
  for (size_t i = 0; i < results.size(); ++i) {
    if (request.ids) {
      print_ids(results[i].output);
      continue;
    }
    const std::string rest = outputs[i].finish();
    if (streams)
      std::cout << rest << '\n';
    else
      std::cout << "[" << i + 1 << "] " << request.prompts[i] << texts[i] << rest << "\n\n";
  }
  std::cout.flush();
  int64_t prompt_tokens = 0;
  for (const auto& p : prompts) prompt_tokens += static_cast<int64_t>(p.size());
  timing.print(prompt_tokens);
  return 0;
}

}  // namespace

int run_generate(const Words& words) {
  const Arguments args(words,
                       {"model", "prompt", "prompts-file", "max-tokens", "temperature", "top-k", "top-p", "min-p",
                        "repetition-penalty", "seed", "stop", "tensor", "pipeline", "threads", "dtype", "device"},
                       {"ignore-eos", "ids", "help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const auto start = Clock::now();
  Job job(60);
  return job.run([&] {
    agreed(job.world(), [&] {
      check<ConfigError>(args.rest().empty(), "generate: \"", args.rest().empty() ? "" : args.rest()[0],
                         "\" is not an option; prompts are given as --prompt TEXT");
    });
    return generate(job.world(), args, start);
  });
}

}  // namespace trireme
