#include "launch/trained_task.h"

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "data/tokenizer_files.h"
#include "model/load_weights.h"
#include "tensor/threads.h"
#include "trainer/agreed.h"
#include "trainer/validate.h"

namespace trireme {

const char kTrainedTaskHelp[] =
    "  --tensor N --pipeline N how the ranks share the model; the rest share the data (1 each)\n"
    "  --threads N             of each rank (the host's cores shared by its ranks)\n"
    "  --batch N               samples of a forward (as many as make a few thousand tokens)\n"
    "  --dtype f32|bf16|f16    of the weights (f32)\n"
    "  KEY=VALUE               of the sections task and data: task.label_column=2, data.sequence_length=256\n";

namespace {

const char* task_of(HeadKind head) {
  switch (head) {
    case HeadKind::kSequenceClassification: return "sequence_classification";
    case HeadKind::kTokenClassification: return "token_classification";
    case HeadKind::kQuestionAnswering: return "question_answering";
    case HeadKind::kEmbedding: return "embeddings";
    case HeadKind::kLanguageModel:
    case HeadKind::kPretraining: break;
  }
  return kMaskedLanguageModelTask;
}

// The run that made the model, with this model and no data of its own.
RunConfig config_of(const std::string& dir, const ModelConfig& model, const Words& words) {
  for (const std::string& word : words)
    check<ConfigError>(word.starts_with("task.") || word.starts_with("data."), "\"", word,
                       "\": only keys of the sections task and data can be given, such as data.sequence_length=256");
  Words overrides = {"model.from=" + dir, "tokenizer.path=null"};
  const std::filesystem::path path = std::filesystem::path(dir) / "run.yaml";
  std::string yaml, source = path.string();
  if (std::filesystem::exists(path)) {
    yaml = read_text_file(path, 1 << 20);
  } else {
    source = dir;
    const std::string kind = is_decoder(model) ? kLanguageModelTask : task_of(model.head.kind);
    const int64_t length = std::min<int64_t>(model.max_length(), kind == std::string("question_answering") ? 384 : 256);
    yaml = text("data: {train: none, sequence_length: ", length, "}\ntrain: {steps: 1}\ntask: {kind: ", kind, "}\n");
  }
  overrides.insert(overrides.end(), words.begin(), words.end());
  return parse_run_config(yaml, source, overrides);
}

}  // namespace

TrainedTask::TrainedTask(Communicator& world, const Arguments& args) : world_(world) {
  MeshShape shape;
  DType dtype = DType::kF32;
  std::unique_ptr<WeightSource> weights;
  agreed(world, [&] {
    const std::string dir = args.required("model");
    model_config_ = ModelConfig::from_directory(dir);
    config_ = config_of(dir, model_config_, args.rest());
    tokenizer_ = std::make_unique<Tokenizer>(load_tokenizer(dir));
    check_vocabulary(config_, model_config_, tokenizer_->vocab_size(), std::nullopt);
    if (is_labelled_task(config_.task.kind)) {
      task_ = &find_task(config_.task.kind);
      options_ = config_.task;
      options_.max_length = std::min(config_.data.sequence_length, model_config_.max_length());
      HeadSpec& head = model_config_.head;
      const HeadKind wanted = task_->head_kind();
      check<ConfigError>(wanted == head.kind || wanted == HeadKind::kEmbedding, dir, ": is a model for ", task_of(head.kind),
                         ", not for task.kind=", config_.task.kind, "; train it for that first");
      head.kind = wanted;
      head.pooling = options_.pooling;
      head.normalize = options_.normalize;
      options_.problem = head.problem;
    }
    shape.pp = static_cast<int>(args.integer("pipeline", 1, 1, 1 << 16));
    shape.tp = static_cast<int>(args.integer("tensor", 1, 1, 1 << 16));
    check<ConfigError>(world.size() % (shape.pp * shape.tp) == 0, "--tensor=", shape.tp, " * --pipeline=", shape.pp,
                       " does not divide the ", world.size(), " ranks");
    shape.dp = world.size() / (shape.pp * shape.tp);
    batch_ = args.integer("batch", 0, 0, 1 << 20);
    const std::string name = args.value("dtype").value_or("f32");
    check<ConfigError>(name == "f32" || name == "bf16" || name == "f16", "--dtype=", name, "; use f32, bf16 or f16");
    dtype = name == "f32" ? DType::kF32 : name == "bf16" ? DType::kBF16 : DType::kF16;
    const int threads = static_cast<int>(args.integer("threads", 0, 0, 4096));
    set_num_threads(threads ? threads : threads_for(world.size()));
    weights = std::make_unique<WeightSource>(WeightSource::open(dir));
  });
  mesh_ = std::make_unique<Mesh>(world, shape);
  agreed(world, [&] {
    model_ = std::make_unique<ShardedModel>(model_config_, *mesh_, ModelLayout{});
    map_weights(*model_, *weights, dtype);
  });
}

BatchPlan TrainedTask::plan(int64_t tokens_a_sample) const {
  // A few thousand rows keep products at their rate; more would only take memory.
  constexpr int64_t kRows = 4096;
  BatchPlan plan;
  plan.micro_batch = batch_ ? batch_ : std::clamp<int64_t>(kRows / std::max<int64_t>(1, tokens_a_sample), 1, 512);
  plan.data_ranks = mesh_->shape().dp;
  plan.data_rank = mesh_->dp().rank();
  return plan;
}

TaskEvaluation TrainedTask::outputs(const TaskData& data, const ActivityFn& activity) const {
  ExampleBatchOptions options;
  options.head = model_config_.head.kind;
  options.problem = model_config_.head.problem;
  options.outputs = static_cast<int64_t>(model_config_.head.labels.size());
  options.shuffle = false;
  const ExampleBatches source(data, options);
  const int64_t count = source.samples_per_epoch();
  return evaluate_task(world_, *model_, data, source, plan(data.num_tokens() / count), count, {}, activity);
}

}  // namespace trireme
