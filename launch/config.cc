#include <algorithm>
#include <cstdio>

#include "base/json.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "trainer/model_section.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme config validate CONFIG [key.path=value ...] [--ranks N]\n"
    "       trireme config dump CONFIG [key.path=value ...]\n"
    "       trireme config schema\n\n"
    "validate checks a run config, its files, and that it fits N ranks; dump prints it with every default filled in;\n"
    "schema prints a JSON Schema of the format.\n\n"
    "example: trireme config validate configs/gpt2-124m.yaml parallel.tensor=2 --ranks 8\n";

}  // namespace

int run_config(const Words& words) {
  const Arguments args(words, {"ranks"}, {"help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const std::string what = args.rest().empty() ? "" : args.rest()[0];
  if (what == "schema") {
    std::fputs(to_json(run_config_schema(), JsonLayout::kIndented).c_str(), stdout);
    return 0;
  }
  check<ConfigError>(what == "validate" || what == "dump",
                     "config: say validate, dump or schema; see trireme config --help");
  check<ConfigError>(args.rest().size() >= 2, "config ", what, ": which file?");
  const RunConfig config = load_run_config(args.rest()[1], Words(args.rest().begin() + 2, args.rest().end()));
  if (what == "dump") {
    std::fputs(dump_run_config(config).c_str(), stdout);
    return 0;
  }
  const ModelConfig model = load_model_config(config);
  RunEnvironment environment;
  const int64_t least =
      config.parallel.tensor * config.parallel.pipeline * std::max<int64_t>(1, config.parallel.data);
  environment.world_size = static_cast<int>(args.integer("ranks", least, 1, 1 << 24));
  const RunPlan plan = validate(config, model, environment);
  check_paths(config);
  std::fputs(describe_plan(config, plan).c_str(), stdout);
  for (const std::string& w : plan.warnings) std::printf("warning: %s\n", w.c_str());
  std::printf("%s: valid for %d ranks\n", args.rest()[1].c_str(), environment.world_size);
  return 0;
}

}  // namespace trireme
