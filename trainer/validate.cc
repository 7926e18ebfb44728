#include "trainer/validate.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/yaml.h"

namespace trireme {
namespace {

template <class... Args>
void require(bool ok, const Args&... message) {
  check<ConfigError>(ok, message...);
}

int resolve_data_ranks(const ParallelSection& p, int world) {
  require(world >= 1, "world size ", world, " is no number of ranks");
  const int64_t model_ranks = p.tensor * p.pipeline;  // each at most 2^16
  if (p.data == 0) {
    require(world % model_ranks == 0, "world size ", world, " is not a multiple of parallel.tensor=", p.tensor,
            " * parallel.pipeline=", p.pipeline, " = ", model_ranks, "; start a multiple of ", model_ranks,
            " ranks or change the layout");
    return static_cast<int>(world / model_ranks);
  }
  require(model_ranks * p.data == world, "world size ", world, " does not match parallel.tensor=", p.tensor,
          " * parallel.pipeline=", p.pipeline, " * parallel.data=", p.data, " = ", model_ranks * p.data, "; start ",
          model_ranks * p.data, " ranks or change the layout");
  return static_cast<int>(p.data);
}

void check_device(const RunConfig& config, const RunEnvironment& environment) {
  require(!config.train.fp8 || config.train.dtype != DType::kF32, "train.fp8 with train.dtype=f32; use bf16 or f16 for what is "
          "not 8-bit");
  require(config.run.matmul_precision == MatmulPrecision::kF32 || config.train.dtype == DType::kF32,
          "run.matmul_precision=", name_of(config.run.matmul_precision), " with train.dtype=", config.train.dtype,
          ", whose products have its own precision; it is for train.dtype=f32");
  require(config.run.device == DeviceChoice::kAuto || config.run.matmul_precision == MatmulPrecision::kF32 ||
              (config.run.matmul_precision == MatmulPrecision::kTf32) == (config.run.device == DeviceChoice::kCuda),
          "run.matmul_precision=", name_of(config.run.matmul_precision), " with run.device=",
          config.run.device == DeviceChoice::kCuda ? "cuda, which has f32 and tf32" : "cpu; tf32 is for cuda");
  require(config.comm.backend != CommBackend::kSelf || environment.world_size == 1, "comm.backend=self is for one rank, ",
          environment.world_size, " were started; use auto or mpi");
}

// Sizes that the tensor ranks share out. A vocabulary that does not divide is padded.
void check_tensor_split(const ParallelSection& p, const ModelConfig& m) {
  for (const auto& [name, size] : {std::pair("num_attention_heads", m.num_attention_heads),
                                   std::pair("num_key_value_heads", m.num_key_value_heads),
                                   std::pair("intermediate_size", m.intermediate_size)})
    require(size % p.tensor == 0, "parallel.tensor=", p.tensor, " does not divide model.", name, "=", size,
            "; use a divisor of ", std::gcd(std::gcd(m.num_attention_heads, m.num_key_value_heads), m.intermediate_size));
  require(p.tensor <= m.vocab_size, "parallel.tensor=", p.tensor, " is above model.vocab_size=", m.vocab_size);
}

std::vector<int> layers_per_stage(const ParallelSection& p, const ModelConfig& m) {
  const int64_t layers = m.num_hidden_layers, pieces = p.pipeline * p.chunks;
  const std::string stages =
      text("parallel.pipeline=", p.pipeline, p.chunks > 1 ? text(" * parallel.chunks=", p.chunks) : std::string());
  require(pieces <= layers, stages, " is more stages than model.num_hidden_layers=", layers, "; use at most ", layers);
  if (p.layers_per_stage.empty()) {
    require(layers % pieces == 0, stages, p.chunks > 1 ? text(" = ", pieces) : std::string(),
            " does not divide model.num_hidden_layers=", layers, "; use a divisor of ", layers,
            " or give parallel.layers_per_stage");
    return std::vector<int>(static_cast<size_t>(pieces), static_cast<int>(layers / pieces));
  }
  const auto& list = p.layers_per_stage;
  require(static_cast<int64_t>(list.size()) == pieces, "parallel.layers_per_stage names ", list.size(), " stages, ", stages,
          " has ", pieces, "; give one count for each");
  const int64_t sum = std::accumulate(list.begin(), list.end(), int64_t{0});
  require(sum == layers, "parallel.layers_per_stage sums to ", sum, ", model.num_hidden_layers=", layers,
          "; the counts must sum to ", layers);
  return {list.begin(), list.end()};
}

void check_schedule(const ParallelSection& p) {
  const bool interleaved = p.schedule == "interleaved";
  require(!interleaved || p.chunks >= 2, "parallel.schedule=interleaved with parallel.chunks=", p.chunks,
          "; use 2 or more chunks, or schedule 1f1b");
  require(interleaved || p.chunks == 1, "parallel.chunks=", p.chunks, " with parallel.schedule=", p.schedule,
          "; chunks are for interleaved, use 1");
  require(!interleaved || p.pipeline >= 2, "parallel.schedule=interleaved with parallel.pipeline=", p.pipeline,
          "; use 2 or more stages, or schedule 1f1b");
}

void check_batch(const RunConfig& config, const ModelConfig& model, RunPlan& plan) {
  const TrainSection& t = config.train;
  const int64_t together = t.micro_batch * plan.data_ranks;
  require(t.global_batch % together == 0, "train.global_batch=", t.global_batch, " is not a multiple of train.micro_batch=",
          t.micro_batch, " * data ranks=", plan.data_ranks, " = ", together, "; use a multiple of ", together);
  plan.micro_batches = t.global_batch / together;
  const int64_t length = config.data.sequence_length;
  require(length <= model.max_length(), "data.sequence_length=", length,
          " is above model.max_position_embeddings=", model.max_position_embeddings, "; use at most ",
          model.max_length());
  plan.tokens_per_step = t.global_batch * length;
  plan.tokens_per_micro_batch = t.micro_batch * length;
  require(plan.tokens_per_micro_batch <= (int64_t{1} << 31) - 1, "train.micro_batch=", t.micro_batch,
          " * data.sequence_length=", length, " is ", plan.tokens_per_micro_batch,
          " tokens in one forward; use a smaller micro-batch");
  const ParallelSection& p = config.parallel;
  // Batches of tasks are filled up instead.
  const bool filled_up = config.task.kind != kLanguageModelTask;
  require(filled_up || !p.sequence || plan.tokens_per_micro_batch % p.tensor == 0, "parallel.sequence: train.micro_batch=",
          t.micro_batch, " * data.sequence_length=", length, " = ", plan.tokens_per_micro_batch,
          " tokens are not a multiple of parallel.tensor=", p.tensor, "; use a length that is");
  // A schedule's list of actions is bounded (parallel/schedule.h).
  require(plan.micro_batches * p.pipeline * p.chunks <= (int64_t{1} << 22), "train.global_batch=", t.global_batch, " is ",
          plan.micro_batches, " micro-batches a step; use a larger train.micro_batch");
  if (p.pipeline > 1 && plan.micro_batches < p.pipeline)
    plan.warnings.push_back(text("a step has ", plan.micro_batches, " micro-batches for ", p.pipeline,
                                 " pipeline stages, which will mostly wait; use a larger train.global_batch or a smaller "
                                 "train.micro_batch"));
}

void check_length(const RunConfig& config, const RunEnvironment& environment, RunPlan& plan) {
  const TrainSection& t = config.train;
  const int given = t.steps.has_value() + t.tokens.has_value() + t.epochs.has_value();
  require(given > 0, "train.steps is missing; give one of train.steps, train.tokens, train.epochs");
  require(given == 1, "train.steps, train.tokens and train.epochs: ", given, " of them are given; keep one (null removes one)");
  if (t.steps) plan.total_steps = *t.steps;
  if (t.tokens) plan.total_steps = (*t.tokens - 1) / plan.tokens_per_step + 1;
  if (t.epochs && environment.samples_per_epoch) {
    const double samples = *t.epochs * static_cast<double>(*environment.samples_per_epoch);
    require(samples > 0 && samples < 9e15, "data.train has ", *environment.samples_per_epoch,
            " samples of data.sequence_length=", config.data.sequence_length, "; no step can be made of them");
    plan.total_steps = static_cast<int64_t>(std::ceil(samples / static_cast<double>(t.global_batch)));
  }
  plan.evaluate_every_steps = static_cast<double>(t.evaluate_every_steps);
  if (t.evaluate_every_epochs > 0 && environment.samples_per_epoch)
    plan.evaluate_every_steps = t.evaluate_every_epochs * static_cast<double>(*environment.samples_per_epoch) /
                                static_cast<double>(t.global_batch);
}

// Options that the task does not read are refused.
void check_task(const RunConfig& config, const ModelConfig& model) {
  const TaskSection& task = config.task;
  const TaskSection defaults;
  const bool decoder = is_decoder(model);
  require(decoder == (task.kind == kLanguageModelTask), "task.kind=", task.kind, " with model.model_type=", model.model_type,
          decoder ? "; decoders learn language_model" : ", an encoder; use masked_language_model or a task of labelled data");
  const auto only = [&](bool same, const char* key, std::initializer_list<const char*> kinds) {
    if (same) return;
    std::string names;
    for (const char* kind : kinds) {
      if (task.kind == kind) return;
      names += (names.empty() ? "" : ", ") + std::string(kind);
    }
    require(false, "task.", key, " is given with task.kind=", task.kind, "; it is for ", names);
  };
  constexpr const char *kSequence = "sequence_classification", *kToken = "token_classification",
                       *kAnswers = "question_answering", *kEmbeddings = "embeddings";
  const auto labelled = {kSequence, kToken, kAnswers, kEmbeddings};
  only(task.format == defaults.format, "format", labelled);
  only(task.header == defaults.header, "header", labelled);
  only(task.skip_bad_rows == defaults.skip_bad_rows, "on_bad_row", labelled);
  only(task.text_column.empty(), "text_column", labelled);
  only(task.pair_column.empty(), "pair_column", {kSequence, kAnswers, kEmbeddings});
  only(task.label_column.empty(), "label_column", labelled);
  only(task.labels.empty(), "labels", {kSequence, kToken});
  only(task.problem == defaults.problem, "problem", {kSequence});
  only(task.label_separator == defaults.label_separator, "label_separator", {kSequence});
  only(task.stride == defaults.stride, "stride", {kAnswers});
  only(task.max_query_length == defaults.max_query_length, "max_query_length", {kAnswers});
  only(task.max_answer_length == defaults.max_answer_length, "max_answer_length", {kAnswers});
  only(task.best_answers == defaults.best_answers, "best_answers", {kAnswers});
  only(task.unanswerable == defaults.unanswerable, "unanswerable", {kAnswers});
  only(task.null_threshold == defaults.null_threshold, "null_threshold", {kAnswers});
  only(task.pooling == defaults.pooling, "pooling", {kEmbeddings});
  only(task.normalize == defaults.normalize, "normalize", {kEmbeddings});
  only(task.loss.temperature == defaults.loss.temperature, "temperature", {kEmbeddings});
  only(task.masking.masking == defaults.masking.masking, "masking", {kMaskedLanguageModelTask});
  only(task.masking.probability == defaults.masking.probability, "mask_probability", {kMaskedLanguageModelTask});
  only(task.masking.next_sentence == defaults.masking.next_sentence, "next_sentence", {kMaskedLanguageModelTask});
  only(task.loss.label_smoothing == 0, "label_smoothing", {kSequence, kToken});
  only(task.class_weights.empty(), "class_weights", {kSequence, kToken});
  only(task.loss.r_drop == 0, "r_drop", {kSequence});
  require(task.problem == ProblemType::kSingleLabel || (task.loss.label_smoothing == 0 && task.class_weights.empty() && task.loss.r_drop == 0),
          "task.label_smoothing, class_weights and r_drop are for task.problem=single_label");
  require(decoder || (config.sample.prompts.empty()), "sample.prompts: an encoder writes no text; take them out");
}

void check_learning_rate(const TrainSection& t, RunPlan& plan) {
  require(t.min_learning_rate <= t.learning_rate, "train.min_learning_rate=", t.min_learning_rate,
          " is above train.learning_rate=", t.learning_rate);
  const bool constant = t.schedule == LearningRateKind::kConstant;
  require(!constant || t.decay_steps == 0, "train.decay_steps=", t.decay_steps,
          " with train.schedule=constant, which does not decay; use 0 or another schedule");
  require(!constant || t.min_learning_rate == 0, "train.min_learning_rate=", t.min_learning_rate,
          " with train.schedule=constant, which does not decay; use 0 or another schedule");
  require(t.warmup_share == 0 || t.warmup_steps == 0, "train.warmup_steps and train.warmup_share are both given; keep one");
  plan.warmup_steps = t.warmup_steps;
  if (!plan.total_steps) return;
  const int64_t total = *plan.total_steps;
  if (t.warmup_share > 0) plan.warmup_steps = static_cast<int64_t>(std::ceil(t.warmup_share * static_cast<double>(total)));
  if (t.warmup_steps > total)
    plan.warnings.push_back(text("train.warmup_steps=", t.warmup_steps, " is above the run's ", total,
                                 " steps; the learning rate never reaches its peak"));
  if (constant) return;
  const int64_t after_warmup = std::max<int64_t>(0, total - plan.warmup_steps);
  plan.decay_steps = t.decay_steps > 0 ? t.decay_steps
                     : t.schedule == LearningRateKind::kWarmupStableDecay
                         ? std::min(std::max<int64_t>(1, total / 10), after_warmup)
                         : after_warmup;
  if (plan.decay_steps > after_warmup)
    plan.warnings.push_back(text("train.warmup_steps=", t.warmup_steps, " + train.decay_steps=", plan.decay_steps,
                                 " is above the run's ", total, " steps; the learning rate never reaches its minimum"));
}

// Options that would be ignored are refused.
void check_optimizer(const TrainSection& t) {
  const TrainSection defaults;
  if (t.optimizer == "adamw") {
    require(t.momentum == 0, "train.momentum=", t.momentum, " with train.optimizer=adamw, which has none; use train.betas");
    require(!t.nesterov, "train.nesterov=true with train.optimizer=adamw; it is for sgd");
  } else {
    require(t.betas == defaults.betas, "train.betas with train.optimizer=sgd; they are for adamw, use train.momentum");
    require(t.eps == defaults.eps, "train.eps=", t.eps, " with train.optimizer=sgd; it is for adamw");
    require(!t.nesterov || t.momentum > 0, "train.nesterov=true with train.momentum=0; it needs momentum above 0");
  }
}

void check_metrics(const RunConfig& config, RunPlan& plan) {
  const bool validates = !config.data.validation.empty();
  const auto& stopping = config.train.early_stopping;
  const auto check_metric = [&](const std::string& metric, const char* key, const char* what) {
    std::vector<std::string> known = {kValidationLoss, kTrainLoss};
    if (is_labelled_task(config.task.kind))
      for (const std::string& name : find_task(config.task.kind).metric_names(config.task)) known.push_back(name);
    std::string names;
    for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
    require(std::find(known.begin(), known.end(), metric) != known.end(), key, "=", metric,
            " is not known; with task.kind=", config.task.kind, " use one of ", names);
    require(metric == kTrainLoss || validates, what, metric, " needs data.validation, which is empty");
    require(metric == kTrainLoss || config.train.evaluate_every_steps > 0 || config.train.evaluate_every_epochs > 0, what,
            metric, " needs train.evaluate_every_steps above 0");
  };
  if (stopping.patience > 0)
    check_metric(stopping.metric, "train.early_stopping.metric", "train.early_stopping with metric ");
  if (config.checkpoint.keep_best)
    check_metric(config.checkpoint.best_metric, "checkpoint.best_metric", "checkpoint.keep_best with best_metric ");
  require(config.train.evaluate_every_steps == 0 || config.train.evaluate_every_epochs == 0,
          "train.evaluate_every_steps and train.evaluate_every_epochs are both given; keep one");
  require(config.train.evaluate_every_steps == 0 || validates, "train.evaluate_every_steps=",
          config.train.evaluate_every_steps, " needs data.validation, which is empty");
  require(config.train.evaluate_every_epochs == 0 || validates, "train.evaluate_every_epochs=",
          config.train.evaluate_every_epochs, " needs data.validation, which is empty");
  require(config.sample.prompts.empty() || !config.tokenizer.path.empty() || !config.model.from.empty(),
          "sample.prompts needs tokenizer.path");
  const auto& c = config.checkpoint;
  if (c.every_steps == 0 && c.every_minutes == 0 && !c.save_at_end)
    plan.warnings.push_back("checkpoint: nothing is ever saved; give every_steps, every_minutes or save_at_end");
}

}  // namespace

RunPlan validate(const RunConfig& config, const ModelConfig& model, const RunEnvironment& environment) {
  RunPlan plan;
  check_device(config, environment);
  plan.data_ranks = resolve_data_ranks(config.parallel, environment.world_size);
  model.validate();
  check_tensor_split(config.parallel, model);
  check_schedule(config.parallel);
  check_task(config, model);
  plan.layers_per_stage = layers_per_stage(config.parallel, model);
  check_batch(config, model, plan);
  check_length(config, environment, plan);
  check_learning_rate(config.train, plan);
  check_optimizer(config.train);
  require(config.profile.start_step == 0 || config.profile.steps > 0, "profile.start_step=", config.profile.start_step,
          " with profile.steps=0, which profiles nothing; give profile.steps");
  if (plan.total_steps && config.profile.start_step > *plan.total_steps)
    plan.warnings.push_back(text("profile.start_step=", config.profile.start_step, " is above the run's ",
                                 *plan.total_steps, " steps; nothing will be profiled"));
  check_metrics(config, plan);
  return plan;
}

void check_paths(const RunConfig& config) {
  const auto need = [&](const char* field, const std::string& path) {
    std::error_code ignored;
    require(std::filesystem::exists(path, ignored), config.source, ": ", field, "=", path, " is not there; check the path (relative to ",
            std::filesystem::current_path().string(), ")");
  };
  if (!config.model.from.empty()) need("model.from", config.model.from);
  if (!config.run.tuning.empty()) need("run.tuning", config.run.tuning);
  if (!config.tokenizer.path.empty()) need("tokenizer.path", config.tokenizer.path);
  for (const DataSource& source : config.data.train) need("data.train", source.path);
  for (const std::string& path : config.data.validation) need("data.validation", path);
}

void check_vocabulary(const RunConfig& config, const ModelConfig& model, std::optional<int64_t> tokenizer_size,
                      std::optional<int64_t> data_vocabulary) {
  if (tokenizer_size)
    require(*tokenizer_size <= model.vocab_size, "tokenizer.path=", config.tokenizer.path, " has ", *tokenizer_size,
            " tokens, model.vocab_size=", model.vocab_size, "; use model.vocab_size=", *tokenizer_size,
            " or the model's own tokenizer");
  if (data_vocabulary)
    require(*data_vocabulary <= model.vocab_size, "data.train is of a vocabulary of ", *data_vocabulary,
            " tokens, model.vocab_size=", model.vocab_size, "; use model.vocab_size=", *data_vocabulary,
            " or prepare the data with the model's own tokenizer");
}

std::string describe_plan(const RunConfig& config, const RunPlan& plan) {
  const ParallelSection& p = config.parallel;
  std::string out = text("layout: ", p.tensor * p.pipeline * plan.data_ranks, " ranks = tensor ", p.tensor, " * pipeline ",
                         p.pipeline, " * data ", plan.data_ranks, p.sequence ? ", sequence parallel" : "", ", zero ", p.zero,
                         ", schedule ", p.schedule, "\nlayers of each stage:");
  for (int layers : plan.layers_per_stage) out += text(" ", layers);
  out += text("\nbatch: ", config.train.global_batch, " sequences of ", config.data.sequence_length, " tokens = ",
              plan.tokens_per_step, " tokens a step, in ", plan.micro_batches, " micro-batches of ",
              config.train.micro_batch, " on each data rank\n");
  if (plan.total_steps) out += text("length: ", *plan.total_steps, " steps\n");
  for (const std::string& warning : plan.warnings) out += "warning: " + warning + "\n";
  return out;
}

}  // namespace trireme
