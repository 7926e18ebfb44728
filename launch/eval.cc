#include <chrono>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/files.h"
#include "launch/trained_task.h"
#include "tasks/masked_lm.h"
#include "trainer/agreed.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme eval --model DIR --data FILE [--data FILE ...] [OPTIONS] [KEY=VALUE ...]\n\n"
    "How good a model is on labelled data, or a language model on prepared tokens: its loss and scores, a report by class.\n"
    "DIR is a Hugging Face directory or a checkpoint (runs/x/best). Under mpirun the ranks share the data.\n\n"
    "  --out DIR               also write the report, report.json and the confusion matrix as a picture there\n"
    "  --json                  print one JSON object instead\n";
constexpr char kExamples[] =
    "\nexamples:\n"
    "  trireme eval --model runs/ner/best --data test.conll\n"
    "  mpirun -np 2 trireme eval --model runs/sst2/latest --data dev.tsv --out scores task.label_column=label\n";

struct Judged {
  double loss = 0;
  int64_t samples = 0;
  std::string size;
  TaskScores scores;
};

Judged judge_language_model(const TrainedTask& trained, const std::vector<std::string>& paths, const ActivityFn& activity) {
  const RunConfig& config = trained.config();
  std::unique_ptr<BatchSource> source;
  if (config.task.kind == kLanguageModelTask) {
    std::vector<SampleSource::File> files;
    for (const std::string& p : paths) files.push_back({p, 1});
    source = std::make_unique<TokenBatches>(
        files, SampleOptions{config.data.sequence_length, config.data.packing, config.data.reset_positions, false, 0});
  } else {
    std::vector<MaskedLmBatches::File> files;
    for (const std::string& p : paths) files.push_back({p, 1});
    source = std::make_unique<MaskedLmBatches>(
        files, trained.tokenizer(),
        MaskedLmBatches::Options{config.task.masking, config.data.sequence_length, false, static_cast<uint64_t>(config.run.seed), 1});
  }
  Judged judged;
  judged.samples = source->samples_per_epoch();
  judged.size = source->size_text();
  const BatchPlan plan = trained.plan(config.data.sequence_length);
  const int64_t round = 256 * plan.micro_batch * plan.data_ranks;
  double sum = 0, weight = 0;
  for (int64_t first = 0; first < judged.samples; first += round) {
    const EvaluationResult r =
        evaluate(trained.model(), load_evaluation(*source, plan, first, std::min(judged.samples, first + round)), {}, nullptr, activity);
    sum += r.loss * r.weight;
    weight += r.weight;
  }
  judged.loss = weight > 0 ? sum / weight : 0;
  judged.scores.metrics = {{"perplexity", std::exp(judged.loss)}};
  return judged;
}

Judged judge_task(Communicator& world, const TrainedTask& trained, const std::vector<std::string>& paths, const ActivityFn& activity) {
  std::unique_ptr<TaskData> data;
  agreed(world, [&] {
    data = trained.task().read(paths, trained.options(), trained.tokenizer(), true);
    trained.task().set_labels(*data, trained.model_config().head, trained.options());
  });
  if (world.rank() == 0)
    for (const std::string& note : data->notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  const TaskEvaluation e = trained.outputs(*data, activity);
  Judged judged;
  judged.loss = e.loss;
  judged.samples = static_cast<int64_t>(data->samples.size());
  judged.size = text(data->num_tokens(), " tokens");
  agreed(world, [&] {
    if (world.rank() == 0)
      judged.scores = trained.task().score(*data, trained.model_config().head, trained.options(), e.outputs);
  });
  return judged;
}

void print(const Judged& j, double seconds, bool json) {
  if (json) {
    boost::json::object o = {{"loss", j.loss}, {"samples", j.samples}, {"seconds", seconds}};
    for (const auto& [name, value] : j.scores.metrics)
      o[name] = std::isfinite(value) ? boost::json::value(value) : boost::json::value(nullptr);
    std::printf("%s\n", boost::json::serialize(o).c_str());
    return;
  }
  std::printf("%s\n", j.scores.report.c_str());
  std::printf("%-20s %.6f\n", "loss", j.loss);
  for (const auto& [name, value] : j.scores.metrics) std::printf("%-20s %.6f\n", name.c_str(), value);
  std::printf("%lld samples (%s) in %.2f s, %.1f samples a second\n", static_cast<long long>(j.samples), j.size.c_str(), seconds,
              static_cast<double>(j.samples) / seconds);
}

}  // namespace

int run_eval(const Words& words) {
  std::vector<std::string> options(std::begin(kTrainedTaskOptions), std::end(kTrainedTaskOptions));
  options.insert(options.end(), {"data", "out"});
  const Arguments args(words, options, {"json", "help"});
  if (args.has("help")) {
    std::printf("%s%s%s", kHelp, kTrainedTaskHelp, kExamples);
    return 0;
  }
  Job job(60);
  return job.run([&] {
    Communicator& world = job.world();
    const TrainedTask trained(world, args);
    const std::vector<std::string> paths = args.all("data");
    check<ConfigError>(!paths.empty(), "eval: --data is missing; give the files to judge the model by");
    const ActivityFn activity = [&](const std::string& what) { job.watchdog().set_activity(what); };
    const auto begin = std::chrono::steady_clock::now();
    const Judged judged = is_labelled_task(trained.config().task.kind) ? judge_task(world, trained, paths, activity)
                                                                        : judge_language_model(trained, paths, activity);
    if (world.rank() != 0) return 0;
    print(judged, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), args.has("json"));
    if (const auto out = args.value("out")) {
      std::filesystem::create_directories(*out);
      const std::filesystem::path folder = *out;
      write_file_atomically(folder / "report.txt", judged.scores.report);
      for (const auto& [name, content] : judged.scores.files) write_file_atomically(folder / name, content);
    }
    return 0;
  });
}

}  // namespace trireme
