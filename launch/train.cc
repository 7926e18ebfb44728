#include "trainer/train.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/files.h"
#include "data/tokenizer_files.h"
#include "inference/engine.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/stop_signals.h"
#include "tasks/scores_statistics.h"
#include "trainer/agreed.h"
#include "trainer/device.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme train CONFIG [key.path=value ...] [--dry-run [--ranks N[,N...]] [--rates FILE] ...]\n\n"
    "Trains the run that CONFIG describes, or goes on with it from its last checkpoint. Any value of the config can be\n"
    "given on the command line. SIGUSR1, SIGTERM or Ctrl-C: saves and ends with exit code 75; the same command goes on.\n\n"
    "  --dry-run            print layout, memory, a predicted step and the best layouts found, and end\n"
    "  --ranks N[,N...]     ranks that a dry run assumes (default: those mpirun started, or 1); of several, a table\n"
    "  --rates FILE         predict with these rates, of `mpirun -np N trireme doctor --json`, instead of measuring some\n"
    "  --ranks-per-host N   (default: that of --rates, else as many as this host has cores)\n"
    "  --memory-gb G        of a rank, for the layouts found (default: the CUDA device's, or this host's divided by its ranks)\n\n"
    "examples:\n"
    "  mpirun -np 2 trireme train configs/quickstart.yaml parallel.tensor=2\n"
    "  mpirun -np 8 trireme train configs/gpt2-124m.yaml parallel.tensor=2 parallel.pipeline=2\n"
    "  trireme train configs/gpt2-124m.yaml --dry-run --ranks 64 parallel.pipeline=4\n";

// Text for each of sample.prompts by the model as it is.
std::vector<std::string> write_samples(const ShardedModel& model, const RunConfig& config, const Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& p : config.sample.prompts) prompts.push_back(tokenizer.encode(p));
  SamplingOptions options;
  options.max_tokens = config.sample.tokens;
  options.temperature = config.sample.temperature;
  options.seed = static_cast<uint64_t>(config.run.seed);
  EngineOptions engine_options;
  engine_options.max_sequences = static_cast<int64_t>(prompts.size());
  Engine engine(model, engine_options);
  std::vector<std::string> texts;
  for (const Generation& g : engine.generate(prompts, options)) {
    std::vector<int32_t> ids = g.prompt;
    ids.insert(ids.end(), g.output.begin(), g.output.end());
    texts.push_back(tokenizer.decode(ids, {.skip_special_tokens = true}));
  }
  return texts;
}

std::vector<int> rank_counts(const std::string& list) {
  std::vector<int> counts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    int count = 0;
    const auto [stop, error] = std::from_chars(list.data() + begin, list.data() + end, count);
    check<ConfigError>(error == std::errc() && stop == list.data() + end && count >= 1 && count <= 1 << 20, "--ranks=", list,
                       ": wants an integer from 1 to ", 1 << 20, ", or several with commas between");
    counts.push_back(count);
    begin = end + 1;
  }
  return counts;
}

DryRunOptions dry_run_options(const Arguments& args, const RunConfig& config) {
  DryRunOptions options;
  ChosenDevice place;
  if (args.has("rates") && args.has("memory-gb")) {  // then nothing is asked of this host
    place.description = "that of --rates";
  } else {
    const auto self = make_self_communicator();
    place = choose_device(config.run.device, "run.device", *self);
  }
  options.device = place.description;
  options.world_sizes = rank_counts(args.value("ranks").value_or(std::to_string(launched_place().size)));
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int most = *std::max_element(options.world_sizes.begin(), options.world_sizes.end());
  options.ranks_per_host = static_cast<int>(args.integer("ranks-per-host", std::min(cores, most), 1, 1 << 16));
  if (const auto file = args.value("rates")) {
    options.rates = load_machine_rates(*file);
    options.rates_source = "of " + *file;
    if (!args.has("ranks-per-host")) options.ranks_per_host = options.rates.ranks_per_host;
  } else {
    const int threads = config.run.threads ? static_cast<int>(config.run.threads) : std::max(1, cores / options.ranks_per_host);
    options.rates = measure_machine_rates_alone(threads, options.ranks_per_host, place.device);
    options.rates_source = text("measured now by one process on ", place.device);
  }
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  options.memory_bytes = args.has("memory-gb")    ? args.number("memory-gb", 0, 1e-3, 1e6) * (1 << 30)
                         : place.memory_bytes ? static_cast<double>(place.memory_bytes)
                                              : memory / options.ranks_per_host;
  return options;
}

// One run for each of run.seeds, and what their scores have in common.
int train_seeds(Job& job, const RunConfig& config, TrainHooks hooks) {
  std::vector<int64_t> sorted = config.run.seeds;
  std::sort(sorted.begin(), sorted.end());
  check<ConfigError>(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "run.seeds names a seed twice");
  check<ConfigError>(config.sample.prompts.empty(), "sample.prompts with run.seeds; take one of them out");
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;  // by score
  hooks.scores = [&](const std::vector<std::pair<std::string, double>>& scores) {
    if (names.empty())
      for (const auto& [name, value] : scores) names.push_back(name);
    values.resize(names.size());
    for (size_t i = 0; i < names.size(); ++i) values[i].push_back(scores.at(i).second);
  };
  for (const int64_t seed : config.run.seeds) {
    RunConfig one = config;
    one.run.seeds.clear();
    one.run.seed = seed;
    one.run.dir = text(config.run.dir, "/seed-", seed);
    if (job.world().rank() == 0) std::printf("seed %lld\n", static_cast<long long>(seed));
    if (const int code = train(job.world(), one, hooks); code != kExitDone) return code;
  }
  if (job.world().rank() != 0) return kExitDone;
  boost::json::object summary = {{"seeds", boost::json::array(config.run.seeds.begin(), config.run.seeds.end())}};
  std::printf("\nvalidation over %zu seeds, mean and standard deviation\n", config.run.seeds.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const bool finite = std::all_of(values[i].begin(), values[i].end(), [](double v) { return std::isfinite(v); });
    std::printf("  %-20s %s\n", names[i].c_str(), finite ? describe(mean_deviation(values[i]), 1, 4).c_str() : "not a number in some run");
    boost::json::object& o = summary[names[i]].emplace_object();
    if (finite) {
      const MeanDeviation m = mean_deviation(values[i]);
      o["mean"] = m.mean;
      if (m.count > 1) o["deviation"] = m.deviation;
      o["values"] = boost::json::array(values[i].begin(), values[i].end());
    }
  }
  write_file_atomically(std::filesystem::path(config.run.dir) / "seeds.json", boost::json::serialize(summary) + "\n");
  return kExitDone;
}

}  // namespace

int run_train(const Words& words) {
  const Arguments args(words, {"ranks", "rates", "ranks-per-host", "memory-gb"}, {"dry-run", "help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  check<ConfigError>(!args.rest().empty(), "train: which config? e.g. trireme train configs/quickstart.yaml");
  const std::string path = args.rest()[0];
  const Words overrides(args.rest().begin() + 1, args.rest().end());
  if (args.has("dry-run")) {
    const RunConfig config = load_run_config(path, overrides);
    std::fputs(dry_run(config, dry_run_options(args, config)).c_str(), stdout);
    return 0;
  }
  for (const char* option : {"ranks", "rates", "ranks-per-host", "memory-gb"})
    check<ConfigError>(!args.has(option), "train: --", option, " goes with --dry-run; a run has the ranks that mpirun starts");
  // The timeout is in the config, which is read again below with the verdict of all ranks.
  double timeout_s = 60;
  try {
    timeout_s = load_run_config(path, overrides).comm.timeout_s;
  } catch (const Error&) {
  }
  const StopSignals stop;  // before MPI and OpenMP start their threads
  Job job(timeout_s);
  return job.run([&] {
    RunConfig config;
    std::unique_ptr<Tokenizer> tokenizer;
    agreed(job.world(), [&] {
      config = load_run_config(path, overrides);
      check<ConfigError>(config.comm.backend != CommBackend::kMpi || started_by_mpi_launcher(),
                         "comm.backend=mpi, but no MPI launcher started this process; use mpirun, or comm.backend=auto");
      if (config.sample.prompts.empty()) return;
      check<ConfigError>(!config.parallel.sequence && config.parallel.chunks == 1,
                         "sample.prompts: samples are written at parallel.sequence=false and parallel.chunks=1 alone; "
                         "change those, or take the prompts out and use trireme generate");
      const std::string from = config.tokenizer.path.empty() ? config.model.from : config.tokenizer.path;
      tokenizer = std::make_unique<Tokenizer>(load_tokenizer(from));
    });
    TrainHooks hooks;
    hooks.activity = [&](const std::string& what) { job.watchdog().set_activity(what); };
    hooks.step = [&](int64_t step) { job.watchdog().set_step(step); };
    hooks.stop_requested = [&] { return stop.came(); };
    if (!config.run.seeds.empty()) return train_seeds(job, config, hooks);
    if (tokenizer)
      hooks.samples = [&](const ShardedModel& model) { return write_samples(model, config, *tokenizer); };
    return train(job.world(), config, hooks);
  });
}

}  // namespace trireme
