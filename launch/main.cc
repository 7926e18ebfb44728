#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/nearest_name.h"
#include "launch/command.h"

namespace trireme {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Words&);
};

constexpr Command kCommands[] = {
    {"train", "train or go on training, from one YAML file", run_train},
    {"eval", "judge a model by labelled data, or by its perplexity", run_eval},
    {"predict", "let a finetuned model label, tag, answer or embed texts", run_predict},
    {"generate", "let a model write text", run_generate},
    {"convert", "make a model folder of another: of pickled weights, or of another type", run_convert},
    {"tokenize", "train a tokenizer; turn text into ids and back", run_tokenize},
    {"prepare", "turn text or JSONL into an indexed token file", run_prepare},
    {"config", "validate, dump or describe run configs", run_config},
    {"ckpt", "list and verify checkpoints", run_ckpt},
    {"doctor", "what this machine and job are, how fast, and what is wrong", run_doctor},
};

void print_help(std::FILE* out) {
  std::fprintf(out,
               "trireme " TRIREME_VERSION
               ": pretrains, finetunes and serves transformers over many ranks.\n\n"
               "usage: trireme COMMAND [ARGUMENTS]        trireme COMMAND --help\n\n");
  for (const Command& c : kCommands) std::fprintf(out, "  %-10s %s\n", c.name, c.summary);
  std::fprintf(out,
               "\nexample: mpirun -np 2 trireme train configs/quickstart.yaml parallel.tensor=2\n\n"
               "exit codes: 0 done, 1 failed, 2 usage or config, 17 too many NaN steps, 42 watchdog, 75 saved and can "
               "go on\n");
}

int run(int argc, char** argv) {
  // A full disk or a limit on file size is an error of a write, not a signal; so is a reader that went away.
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  const std::string name = argc > 1 ? argv[1] : "";
  // These answer alike on all ranks: rank 0's is shown.
  const auto asks = [](const char* word) { return !std::strcmp(word, "--help") || !std::strcmp(word, "--dry-run"); };
  if (launched_place().rank > 0 && (name == "--version" || name == "-h" || name == "help" || std::any_of(argv + 1, argv + argc, asks)))
    if (!std::freopen("/dev/null", "w", stdout)) throw FileError("/dev/null: cannot open");
  if (name == "--version") {
    std::printf("trireme %s\n", TRIREME_VERSION);
    return 0;
  }
  if (name.empty() || name == "--help" || name == "-h" || name == "help") {
    print_help(name.empty() ? stderr : stdout);
    return name.empty() ? kExitUsage : 0;
  }
  std::vector<std::string> known;
  for (const Command& c : kCommands) {
    if (name == c.name) return c.run(Words(argv + 2, argv + argc));
    known.push_back(c.name);
  }
  const std::string nearest = nearest_name(name, known);
  throw ConfigError(text("\"", name, "\" is not a command", nearest.empty() ? "" : "; did you mean ", nearest,
                         nearest.empty() ? "; see trireme --help" : "?"));
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(argc, argv);
  } catch (const trireme::ConfigError& e) {
    return trireme::end_with_error(e.what());
  } catch (const trireme::FileError& e) {
    return trireme::end_with_error(e.what());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "trireme: %s\n", e.what());
    return 1;
  }
}
