// The description of every field of the run config.
#include "trainer/run_config.h"

namespace trireme {
namespace {

constexpr double kManySteps = 1e12;

}  // namespace

void RunSection::describe(FieldList& list) {
  list.section("run", "the run as a whole");
  list.add("name", name, "name of the run, a plain file name; default: the config file's, without .yaml");
  list.add("dir", dir, "folder for checkpoints, logs and the resolved config; default: runs/<name>");
  list.add("seed", seed, "of weights, sample order and dropout").at_least(0);
  list.add("seeds", seeds, "several runs one after the other, in run.dir/seed-N, and the mean and deviation of their scores")
      .at_least(0);
  list.choice<DeviceChoice>(
      "device", device, {{"auto", DeviceChoice::kAuto}, {"cpu", DeviceChoice::kCpu}, {"cuda", DeviceChoice::kCuda}},
      "auto: cuda where the program has it and each rank finds a device, else cpu");
  list.add("threads", threads, "of each rank; 0: the host's cores divided by its ranks").at_least(0).at_most(4096);
  list.choice<PinMode>("pin", pin, {{"auto", PinMode::kAuto}, {"on", PinMode::kOn}, {"off", PinMode::kOff}},
                       "threads to cores; auto: within cores that mpirun --bind-to gave a rank alone; on: also where ranks "
                       "share cores, in equal parts; not where threads are more than cores");
  list.add("tuning", tuning, "file of `trireme doctor --tune`; empty: the checkpoint's, or the built-in rules");
  list.choice<MatmulPrecision>("matmul_precision", matmul_precision,
                               {{"f32", MatmulPrecision::kF32},
                                {"bf16x3", MatmulPrecision::kBf16x3},
                                {"bf16", MatmulPrecision::kBf16},
                                {"f16", MatmulPrecision::kF16},
                                {"tf32", MatmulPrecision::kTf32}},
                               "of the layers' products with train.dtype f32; bf16x3: each number as two bf16; bf16: rounded to "
                               "one; both need AMX; f16: rounded to f16, and short sums; needs AVX512-FP16; tf32: rounded to 10 bits, on cuda");
  list.choice<ResumeMode>(
      "resume", resume, {{"auto", ResumeMode::kAuto}, {"never", ResumeMode::kNever}, {"must", ResumeMode::kMust}},
      "from the last checkpoint in run.dir; auto: if there is one; must: fail if there is none");
  list.add("log_every_steps", log_every_steps, "between lines of metrics").at_least(1).at_most(kManySteps).unit("steps");
}

void TokenizerSection::describe(FieldList& list) {
  list.section("tokenizer", "needed for raw text, samples and the model directory; not for prepared data alone");
  list.add("path", path, "folder or file of a tokenizer; empty: none");
}

void DataSection::describe(FieldList& list) {
  list.section("data", "what is trained on");
  list.add("train", train, "prepared data: a path, or a list of paths or {path, weight}").required();
  list.add("validation", validation, "prepared data of validation: a path or a list of paths; empty: none");
  list.add("sequence_length", sequence_length, "of a sample").at_least(1).at_most(1 << 20).unit("tokens");
  list.choice<Packing>("packing", packing, {{"documents", Packing::kDocuments}, {"stream", Packing::kStream}},
                       "documents: no attention across the documents of a sample; stream: one text after another");
  list.add("reset_positions", reset_positions, "packing documents: positions start at 0 in each document of a sample");
  list.add("shuffle", shuffle, "a new order of samples each epoch; false: the file's order");
  list.add("validation_samples", validation_samples, "samples of an evaluation; 0: all").at_least(0).unit("samples");
}

void TaskSection::describe(FieldList& list) {
  list.section("task", "what is learned");
  std::vector<std::pair<std::string, std::string>> kinds = {{kLanguageModelTask, kLanguageModelTask},
                                                            {kMaskedLanguageModelTask, kMaskedLanguageModelTask}};
  for (const std::string& name : task_names()) kinds.emplace_back(name, name);
  list.choice<std::string>("kind", kind, kinds, "the first two from prepared data, all others from labelled files");
  list.choice<std::string>("format", format,
                           {{"auto", "auto"}, {"tsv", "tsv"}, {"csv", "csv"}, {"jsonl", "jsonl"}, {"conll", "conll"},
                            {"squad", "squad"}, {"lines", "lines"}},
                           "of labelled files; auto: by the end of their names");
  list.add("header", header, "tsv, csv: the first line names the columns; else they are numbers from 1");
  list.choice<bool>("on_bad_row", skip_bad_rows, {{"stop", false}, {"skip", true}},
                    "stop: the first bad row ends the run; skip: they are counted and left out");
  list.add("text_column", text_column, "name of a column, or its number from 1; empty: by the usual names");
  list.add("pair_column", pair_column, "of the second text; empty: none, or by the usual names");
  list.add("label_column", label_column, "empty: by the usual names");
  list.add("labels", labels, "in the order of their ids; empty: the model's, else those of data.train in alphabetical order");
  list.choice<ProblemType>("problem", problem,
                           {{"single_label", ProblemType::kSingleLabel},
                            {"multi_label", ProblemType::kMultiLabel},
                            {"regression", ProblemType::kRegression}},
                           "of sequence_classification");
  list.add("label_separator", label_separator, "multi_label: between the labels of a row");
  list.add("stride", stride, "question_answering: that neighbouring windows of a long text share")
      .at_least(0).at_most(1 << 20).unit("tokens");
  list.add("max_query_length", max_query_length, "of a question").at_least(1).at_most(1 << 20).unit("tokens");
  list.add("max_answer_length", max_answer_length, "of an answer").at_least(1).at_most(1 << 20).unit("tokens");
  list.add("best_answers", best_answers, "candidates that predictions list").at_least(1).at_most(1000);
  list.add("unanswerable", unanswerable, "question_answering: there are questions without an answer (SQuAD 2)");
  list.add("null_threshold", null_threshold,
           "unanswerable: none is given where its score is above the best answer's by more than this");
  list.choice<Pooling>("pooling", pooling, {{"mean", Pooling::kMean}, {"cls", Pooling::kCls}},
                       "embeddings: the mean of a text's tokens, or its first");
  list.add("normalize", normalize, "embeddings: to length 1");
  list.add("temperature", loss.temperature, "embeddings: of the softmax over the texts of a micro-batch").above(0).at_most(100);
  list.choice<Masking>("masking", masking.masking,
                       {{"token", Masking::kToken}, {"whole_word", Masking::kWholeWord}, {"span", Masking::kSpan}},
                       "masked_language_model: what is masked together; span: arXiv:1907.10529");
  list.add("mask_probability", masking.probability, "masked_language_model: of a token to be predicted").above(0).below(1);
  list.add("next_sentence", masking.next_sentence, "masked_language_model: also whether the second part of a sample follows");
  list.add("label_smoothing", loss.label_smoothing, "of classes: arXiv:1512.00567").at_least(0).below(1);
  list.add("class_weights", class_weights, "of classes: empty: all 1; balanced: by their counts; or \"no=1,yes=3.5\"");
  list.add("r_drop", loss.r_drop, "sequence_classification: weight of the divergence of two passes (arXiv:2106.14448); 0: one pass")
      .at_least(0).at_most(1000);
}

void TrainSection::describe(FieldList& list) {
  list.section("train", "optimisation");
  list.add("steps", steps, "length of the run; give exactly one of steps, tokens, epochs")
      .at_least(1).at_most(kManySteps).unit("steps");
  list.add("tokens", tokens, "length of the run").at_least(1).at_most(1e18).unit("tokens");
  list.add("epochs", epochs, "length of the run").above(0).at_most(1e6).unit("passes over data.train");
  list.add("global_batch", global_batch, "of one step, over all ranks").at_least(1).at_most(1 << 24).unit("sequences");
  list.add("micro_batch", micro_batch, "of one forward on one data rank").at_least(1).at_most(1 << 20).unit("sequences");
  list.choice<DType>("dtype", dtype, {{"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}},
                     "of weights and activations; gradients, sums and optimizer state are f32; f16: with dynamic loss scaling");
  list.add("fp8", fp8, "products of linear layers in 8-bit floats with a scale each (arXiv:2209.05433), with dtype bf16 or f16; "
                      "on the cpu slower than without, to see what it does to a run");
  list.choice<Recompute>("recompute", recompute,
                             {{"none", Recompute::kNone},
                              {"selective", Recompute::kSelective},
                              {"full", Recompute::kFull}},
                             "forward again in backward to save memory; selective: each MLP; full: each block");
  list.choice<std::string>("optimizer", optimizer, {{"adamw", "adamw"}, {"sgd", "sgd"}},
                             "adamw: arXiv:1711.05101; sgd: with momentum");
  list.add("learning_rate", learning_rate, "the peak").above(0).at_most(100);
  list.add("min_learning_rate", min_learning_rate, "at the end of decay").at_least(0).at_most(100);
  list.choice<LearningRateKind>("schedule", schedule,
                                {{"constant", LearningRateKind::kConstant},
                                 {"linear", LearningRateKind::kLinear},
                                 {"cosine", LearningRateKind::kCosine},
                                 {"wsd", LearningRateKind::kWarmupStableDecay}},
                                "of the learning rate after warmup; wsd: constant, then linear decay at the end");
  list.add("warmup_steps", warmup_steps, "linear from 0 to learning_rate").at_least(0).at_most(kManySteps).unit("steps");
  list.add("warmup_share", warmup_share, "warmup as a share of the run, in place of warmup_steps; 0: not so")
      .at_least(0).below(1);
  list.add("layer_decay", layer_decay, "the learning rate of each block is so many times that of the block above it")
      .above(0).at_most(1);
  list.add("head_rate", head_rate, "the learning rate of what stands on the blocks, in learning rates").above(0).at_most(1000);
  list.add("freeze", freeze, "words of parameters' names that are not trained: [embeddings, layer.0]");
  list.add("decay_steps", decay_steps,
           "length of the decay; 0: linear, cosine: from warmup to the end; wsd: the last tenth of the run")
      .at_least(0).at_most(kManySteps).unit("steps");
  list.add("betas", betas, "adamw: decay of both moments").at_least(0).below(1);
  list.add("eps", eps, "adamw: added to the root of the second moment").above(0).at_most(1);
  list.add("weight_decay", weight_decay, "of matrices; biases and norms have none").at_least(0).at_most(10);
  list.add("momentum", momentum, "sgd; 0: none").at_least(0).below(1);
  list.add("nesterov", nesterov, "sgd: look-ahead momentum");
  list.add("clip_grad_norm", clip_grad_norm, "largest global norm of the gradient; 0: no clipping").at_least(0);
  list.add("max_skipped_steps", max_skipped_steps,
           "steps with NaN or Inf are skipped; the run fails after more than this many in a row")
      .at_least(0).at_most(1e6).unit("steps");
  list.add("evaluate_every_epochs", evaluate_every_epochs, "the same, in passes over data.train; 0: not so")
      .at_least(0).at_most(1e6).unit("passes");
  list.add("evaluate_every_steps", evaluate_every_steps, "between evaluations; 0: at the end only")
      .at_least(0).at_most(kManySteps).unit("steps");
  list.section("train.early_stopping", "stop when a metric no longer gets better");
  list.add("metric", early_stopping.metric, "what is watched: validation_loss, train_loss, or a score of the task");
  list.add("patience", early_stopping.patience, "without a new best; 0: off").at_least(0).at_most(1e9).unit("evaluations");
  list.add("min_delta", early_stopping.min_delta, "smaller gains do not count").at_least(0);
}

void ParallelSection::describe(FieldList& list) {
  list.section("parallel", "layout over ranks; ranks = tensor * pipeline * data");
  list.add("tensor", tensor, "ranks that share each layer").at_least(1).at_most(1 << 16).unit("ranks");
  list.add("pipeline", pipeline, "stages that the layers are cut into").at_least(1).at_most(1 << 16).unit("ranks");
  list.add("data", data, "copies of the model; 0: the ranks that remain").at_least(0).at_most(1 << 20).unit("ranks");
  list.add("context", context, "ranks that share a sequence; this build has no more than 1").at_least(1).at_most(1);
  list.add("expert", expert, "ranks that share experts; this build has no more than 1").at_least(1).at_most(1);
  list.add("sequence", sequence, "split activations between blocks over the tensor ranks (arXiv:2205.05198)");
  list.choice<std::string>("schedule", schedule,
                           {{"gpipe", "gpipe"}, {"1f1b", "1f1b"}, {"interleaved", "interleaved"}, {"zb-h1", "zb-h1"}},
                           "order of the pipeline's work");
  list.add("chunks", chunks, "virtual stages of each rank; 2 or more with schedule interleaved, else 1")
      .at_least(1).at_most(1024);
  list.add("layers_per_stage", layers_per_stage, "one count for each of pipeline * chunks stages; empty: equal parts")
      .at_least(1).at_most(1024).unit("layers");
  list.add("zero", zero, "0: none; 1: split optimizer state over data ranks; 2: gradients too (arXiv:1910.02054)")
      .at_least(0).at_most(2);
  list.add("bucket_mb", bucket_mb, "of gradients reduced at once").at_least(1).at_most(4096).unit("MiB");
}

void CheckpointSection::describe(FieldList& list) {
  list.section("checkpoint", "what is saved, and when");
  list.add("every_steps", every_steps, "0: not by steps").at_least(0).at_most(kManySteps).unit("steps");
  list.add("every_minutes", every_minutes, "0: not by time").at_least(0).at_most(1e6).unit("minutes");
  list.add("keep_last", keep_last, "older ones are removed once a later one is complete; 0: keep all").at_least(0).at_most(1e6);
  list.add("keep_best", keep_best, "never remove the best one");
  list.add("best_metric", best_metric, "validation_loss or train_loss, the lowest, or a score of the task, the highest");
  list.add("async", async, "write while training goes on");
  list.add("save_at_end", save_at_end, "of the run");
}

void CommSection::describe(FieldList& list) {
  list.section("comm", "communication between ranks");
  list.add("timeout_s", timeout_s, "a collective that waits longer ends the run, naming the rank")
      .above(0).at_most(86400).unit("seconds");
  list.choice<CommBackend>("backend", backend,
                           {{"auto", CommBackend::kAuto}, {"mpi", CommBackend::kMpi}, {"self", CommBackend::kSelf}},
                           "auto: mpi if started by a launcher, else self (one rank)");
}

void LogSection::describe(FieldList& list) {
  list.section("log", "metrics of the run");
  list.add("tensorboard", tensorboard, "event files in run.dir");
  list.add("jsonl", jsonl, "metrics.jsonl in run.dir");
  list.choice<ProgressStyle>("progress", progress,
                             {{"auto", ProgressStyle::kAuto},
                              {"bar", ProgressStyle::kBar},
                              {"plain", ProgressStyle::kPlain},
                              {"none", ProgressStyle::kNone}},
                             "auto: a bar on a terminal, plain lines elsewhere");
}

void SampleSection::describe(FieldList& list) {
  list.section("sample", "text that the model writes during the run");
  list.add("prompts", prompts, "a string or a list; empty: no samples");
  list.add("tokens", tokens, "of each sample, at most").at_least(1).at_most(1 << 16).unit("tokens");
  list.add("every_steps", every_steps, "0: at the end only").at_least(0).at_most(kManySteps).unit("steps");
  list.add("temperature", temperature, "0: always the likeliest token").at_least(0).at_most(100);
}

void ProfileSection::describe(FieldList& list) {
  list.section("profile", "a few steps, each op and collective timed on all ranks; files in run.dir/profile");
  list.add("steps", steps, "0: none").at_least(0).at_most(1000).unit("steps");
  list.add("start_step", start_step, "the first of them; 0: the third of this start, or earlier if the run is shorter")
      .at_least(0).at_most(kManySteps);
}

bool RunConfig::operator==(const RunConfig& o) const {
  return run == o.run && model == o.model && tokenizer == o.tokenizer && data == o.data && task == o.task && train == o.train &&
         parallel == o.parallel && checkpoint == o.checkpoint && comm == o.comm && log == o.log && sample == o.sample &&
         profile == o.profile;
}

FieldList fields_of(RunConfig& config) {
  FieldList list;
  config.run.describe(list);
  config.tokenizer.describe(list);
  config.data.describe(list);
  config.task.describe(list);
  config.train.describe(list);
  config.parallel.describe(list);
  config.checkpoint.describe(list);
  config.comm.describe(list);
  config.log.describe(list);
  config.sample.describe(list);
  config.profile.describe(list);
  return list;
}

}  // namespace trireme
