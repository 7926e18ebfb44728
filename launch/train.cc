#include "trainer/train.h"

#include <csignal>
#include <cstdio>

#include "data/tokenizer_files.h"
#include "inference/engine.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "trainer/agreed.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme train CONFIG [key.path=value ...] [--dry-run [--ranks N]]\n\n"
    "Trains the run that CONFIG describes, or goes on with it from its last checkpoint. Any value of the config can be\n"
    "given on the command line. SIGUSR1, SIGTERM or Ctrl-C: saves and ends with exit code 75; the same command goes on.\n\n"
    "  --dry-run   print layout, memory and batch arithmetic, and end\n"
    "  --ranks N   ranks that a dry run assumes (default: 1)\n\n"
    "examples:\n"
    "  mpirun -np 2 trireme train configs/quickstart.yaml parallel.tensor=2\n"
    "  mpirun -np 8 trireme train configs/gpt2-124m.yaml parallel.tensor=2 parallel.pipeline=2\n"
    "  trireme train configs/gpt2-124m.yaml --dry-run --ranks 64 parallel.pipeline=4\n";

volatile std::sig_atomic_t stop_signal = 0;  // a signal handler can reach nothing else
void on_stop(int) { stop_signal = 1; }

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

}  // namespace

int run_train(const Words& words) {
  const Arguments args(words, {"ranks"}, {"dry-run", "help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  check<ConfigError>(!args.rest().empty(), "train: which config? e.g. trireme train configs/quickstart.yaml");
  const std::string path = args.rest()[0];
  const Words overrides(args.rest().begin() + 1, args.rest().end());
  if (args.has("dry-run")) {
    const RunConfig config = load_run_config(path, overrides);
    std::fputs(dry_run(config, static_cast<int>(args.integer("ranks", 1, 1, 1 << 24))).c_str(), stdout);
    return 0;
  }
  check<ConfigError>(!args.has("ranks"), "train: --ranks goes with --dry-run; a run has the ranks that mpirun starts");
  // The timeout is in the config, which is read again below with the verdict of all ranks.
  double timeout_s = 60;
  try {
    timeout_s = load_run_config(path, overrides).comm.timeout_s;
  } catch (const Error&) {
  }
  Job job(timeout_s);
  for (int signal : {SIGUSR1, SIGTERM, SIGINT}) std::signal(signal, on_stop);
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
    hooks.stop_requested = [] { return stop_signal != 0; };
    if (tokenizer)
      hooks.samples = [&](const ShardedModel& model) { return write_samples(model, config, *tokenizer); };
    return train(job.world(), config, hooks);
  });
}

}  // namespace trireme
