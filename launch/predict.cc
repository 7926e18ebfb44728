#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "launch/trained_task.h"
#include "trainer/agreed.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme predict --model DIR [--data FILE ...] [OPTIONS] [KEY=VALUE ...] < lines\n\n"
    "What a finetuned model says: classes, tags, answers or vectors, one line a record. DIR is a Hugging Face directory or a\n"
    "checkpoint (runs/x/best). Without --data it reads lines from standard input: a text each, or two with a tab between (pairs;\n"
    "question and text).\n\n"
    "  --data FILE             files as training reads them; labels are not needed and not read\n"
    "  --format json|tsv|conll|squad   of the output: json, or what the task has beside it (json)\n";
constexpr char kExamples[] =
    "\nexamples:\n"
    "  echo 'a gripping film' | trireme predict --model runs/sst2/best\n"
    "  mpirun -np 2 trireme predict --model runs/ner/best --format conll < sentences.txt\n"
    "  trireme predict --model all-MiniLM-L6-v2 --format tsv task.kind=embeddings < sentences.txt\n";

// All lines, from rank 0, whom mpirun gives the standard input.
std::vector<std::string> lines_for_all(Communicator& world) {
  std::string all;
  agreed(world, [&] {
    if (world.rank() != 0) return;
    all.assign(std::istreambuf_iterator<char>(std::cin), {});
    check<ConfigError>(!all.empty(), "predict: standard input is empty; give lines, or --data FILE");
  });
  all = world.broadcast_string(all, 0);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    lines.push_back(all.substr(begin, end - begin));
    if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
    begin = end + 1;
  }
  return lines;
}

}  // namespace

int run_predict(const Words& words) {
  std::vector<std::string> options(std::begin(kTrainedTaskOptions), std::end(kTrainedTaskOptions));
  options.insert(options.end(), {"data", "format"});
  const Arguments args(words, options, {"help"});
  if (args.has("help")) {
    std::printf("%s%s%s", kHelp, kTrainedTaskHelp, kExamples);
    return 0;
  }
  Job job(60);
  return job.run([&] {
    Communicator& world = job.world();
    const TrainedTask trained(world, args);
    check<ConfigError>(is_labelled_task(trained.config().task.kind), "predict: --model=", *args.value("model"),
                       " is a language model; use trireme generate, or give task.kind=embeddings");
    const std::string form = args.value("format").value_or("json");
    const std::vector<std::string> paths = args.all("data");
    const std::vector<std::string> lines = paths.empty() ? lines_for_all(world) : std::vector<std::string>();
    const auto begin = std::chrono::steady_clock::now();
    std::unique_ptr<TaskData> data;
    agreed(world, [&] {
      data = paths.empty() ? trained.task().read_lines(lines, trained.options(), trained.tokenizer())
                           : trained.task().read(paths, trained.options(), trained.tokenizer(), false);
    });
    const TaskEvaluation e =
        trained.outputs(*data, [&](const std::string& what) { job.watchdog().set_activity(what); });
    agreed(world, [&] {
      if (world.rank() != 0) return;
      trained.task().write_predictions(*data, trained.model_config().head, trained.options(), e.outputs, form, std::cout);
      std::cout.flush();
    });
    if (world.rank() != 0) return 0;
    for (const std::string& note : data->notes) std::fprintf(stderr, "note: %s\n", note.c_str());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::fprintf(stderr, "%lld records, %lld tokens in %.2f s: %.1f records a second\n",
                 static_cast<long long>(data->num_records()), static_cast<long long>(data->num_tokens()), seconds,
                 static_cast<double>(data->num_records()) / seconds);
    return 0;
  });
}

}  // namespace trireme
