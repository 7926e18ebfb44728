#include "trainer/train.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/files.h"
#include "model/cost.h"
#include "model/load_weights.h"
#include "parallel/tensor_collectives.h"
#include "tensor/cores.h"
#include "tensor/cuda/allocator.h"
#include "tensor/gemm_table.h"
#include "tensor/threads.h"
#include "trainer/agreed.h"
#include "trainer/batch.h"
#include "trainer/checkpoint.h"
#include "trainer/device.h"
#include "trainer/learning_rate.h"
#include "trainer/metrics.h"
#include "trainer/parameter_rates.h"
#include "trainer/rank_cores.h"
#include "trainer/run_setup.h"
#include "trainer/run_times.h"
#include "trainer/task_evaluation.h"
#include "trainer/train_step.h"
#include "trainer/tuning.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

MeshShape mesh_shape(const RunConfig& config, const RunPlan& plan) {
  MeshShape shape;
  shape.tp = static_cast<int>(config.parallel.tensor);
  shape.pp = static_cast<int>(config.parallel.pipeline);
  shape.dp = plan.data_ranks;
  return shape;
}

// Of the host's memory this process, of a CUDA device's the tensors of this process.
size_t peak_bytes(Device device) {
  if (device.kind != DeviceKind::kCpu) return cuda::default_device_allocator(device.index).stats().peak_bytes;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

// The threads of this rank, on their cores if run.pin wants and allows that.
struct RankThreads {
  RankThreads(Communicator& world, const RunSection& run) {
    const RankCores cores = rank_cores(world);
    set_num_threads(run.threads ? static_cast<int>(run.threads) : default_threads(cores));
    why_not = why_not_pinned(cores, run.pin, num_threads());
    if (!why_not.empty()) return;
    pinned.emplace(cores.share.cores, num_threads());
    why_not = pinned->problem();
    where = text("threads of rank 0 pinned to cores ", list_of_cores(cores.share.cores));
    if (why_not.empty()) return;
    pinned.reset();
  }

  std::optional<PinnedThreads> pinned;
  std::string why_not, where;  // one of them is empty
};

class Run {
 public:
  Run(Communicator& world, const RunConfig& config, const RunSetup& setup, const ChosenDevice& place,
      const TrainHooks& hooks, RankThreads& threads)
      : world_(world),
        threads_(threads),
        place_(place),
        config_(config),
        setup_(setup),
        hooks_(hooks),
        started_(Clock::now()),
        mesh_(world, mesh_shape(config, setup.plan)),
        model_(setup.model, mesh_,
               {static_cast<int>(config.parallel.chunks), setup.plan.layers_per_stage, config.parallel.sequence,
                config.train.fp8},
               place.device),
        buckets_(parameters_at_their_rates(), mesh_,
                 {static_cast<int>(config.parallel.zero), config.parallel.bucket_mb << 20, config.train.dtype,
                  place.device}),
        plan_{config.train.global_batch, config.train.micro_batch, setup.plan.data_ranks, mesh_.dp().rank()} {
    schedule_ = {config.train.schedule,     config.train.learning_rate, config.train.min_learning_rate,
                 setup.plan.warmup_steps,   setup.total_steps,          setup.plan.decay_steps};
  }

  int run() {
    load_initial_weights();
    optimizer_ = std::make_unique<Optimizer>(
        buckets_, OptimizerOptions{config_.train.optimizer, config_.train.betas[0], config_.train.betas[1],
                                   config_.train.eps, config_.train.weight_decay, config_.train.momentum,
                                   config_.train.nesterov});
    TrainStepOptions options;
    options.schedule = config_.parallel.schedule;
    options.recompute = config_.train.recompute;
    options.clip_grad_norm = config_.train.clip_grad_norm;
    options.dropout_seed = static_cast<uint64_t>(config_.run.seed);
    options.loss = setup_.loss;
    options.scale_loss = config_.train.dtype == DType::kF16;
    step_ = std::make_unique<TrainStep>(model_, buckets_, *optimizer_, options);
    step_->set_activity(hooks_.activity);
    agreed(world_, [&] { prepare_folder(); });
    resume();
    if (rank0()) reporter_ = std::make_unique<Reporter>(config_.run.dir, config_.log, setup_.total_steps, state_.step);
    gemm_rate_ = measure_gemm_rate(place_.device, num_threads(), config_.train.dtype);
    const std::vector<double> sums = sum_over(world_, {gemm_rate_, threads_.pinned ? 0.0 : 1.0});
    const double rate = sums[0];
    unpinned_ranks_ = static_cast<int>(sums[1]);
    flops_share_ = training_flops_per_token(setup_.model, setup_.mean_length(config_)) / rate;
    announce(rate);
    const int code = loop();
    finish(code);
    return code;
  }

 private:
  const ParameterList& parameters_at_their_rates() {
    set_parameter_rates(model_.parameters(), setup_.model, config_.train, world_);
    return model_.parameters();
  }

  bool rank0() const { return world_.rank() == 0; }
  void activity(const char* what) const {
    if (hooks_.activity) hooks_.activity(what);
  }

  void load_initial_weights() {
    const bool fresh = config_.model.from.empty(), decoder = is_decoder(setup_.model);
    // A task's head may be new on a model that has none; it starts as a model from random weights does.
    if (fresh || !decoder) model_.initialize(static_cast<uint64_t>(config_.run.seed));
    if (fresh) return;
    std::vector<std::string> missing;
    agreed(world_, [&] {
      missing = load_weights(model_, WeightSource::open(config_.model.from), decoder ? MissingHead::kRefuse : MissingHead::kKeep);
    });
    std::string names;
    for (const std::string& name : missing) names += (names.empty() ? "" : ", ") + name;
    for (const std::string& of_rank : world_.all_gather_strings(names))
      if (new_head_.empty()) new_head_ = of_rank;
  }

  void prepare_folder() {
    if (!rank0()) return;
    const std::filesystem::path dir = config_.run.dir;
    std::error_code error;
    std::filesystem::create_directories(dir, error);
    if (error) throw_file_error(dir, "make the run's folder", error.value());
    write_file_atomically(dir / "run.yaml", dump_run_config(config_));
  }

  void resume() {
    CheckpointOptions options;
    options.dir = config_.run.dir;
    options.tokenizer = config_.tokenizer.path.empty() && setup_.task ? config_.model.from : config_.tokenizer.path;
    options.run_yaml = dump_run_config(config_);
    options.seed = static_cast<uint64_t>(config_.run.seed);
    options.data_identity = setup_.train->identity();
    options.keep_last = config_.checkpoint.keep_last;
    options.async = config_.checkpoint.async;
    // A later start would take the old run's higher step for this one's.
    agreed(world_, [&] {
      if (!rank0() || config_.run.resume != ResumeMode::kNever) return;
      const auto old = find_checkpoint(config_.run.dir, [](const std::string&) {});
      check<ConfigError>(!old, "run.resume=never, but ", config_.run.dir, " holds ", old ? old->string() : "",
                         "; give another run.dir, or remove it");
    });
    std::string found;
    if (rank0() && config_.run.resume != ResumeMode::kNever)
      if (const auto path = find_checkpoint(config_.run.dir, [](const std::string& w) {
            std::fprintf(stderr, "warning: %s\n", w.c_str());
          }))
        found = path->string();
    found = world_.broadcast_string(found, 0);
    const ChosenTuning chosen = choose_tuning(world_, config_.run, found);
    mesh_.use(chosen.tuning.collectives);
    options.tuning = chosen.text;
    tuning_note_ = chosen.warning;
    checkpointer_ = std::make_unique<Checkpointer>(model_, buckets_, *optimizer_, options);
    if (found.empty()) {
      check<ConfigError>(config_.run.resume != ResumeMode::kMust, "run.resume=must, but ", config_.run.dir,
                         " holds no complete checkpoint; use run.resume=auto to start anew");
      return;
    }
    state_ = checkpointer_->load(found);
    if (config_.train.dtype == DType::kF16 && state_.loss_scale != LossScale()) step_->set_loss_scale(state_.loss_scale);
    start_step_ = state_.step;
    earlier_s_ = state_.total_s;
    resumed_from_ = found;
  }

  void announce(double rate) {
    const double parameters = static_cast<double>(model_.global_num_parameters());
    if (!rank0()) return;
    reporter_->note(describe_plan(config_, setup_.plan));
    reporter_->note(text("device of rank 0: ", place_.description));
    reporter_->note(text(setup_.model.model_type, ", ", static_cast<int64_t>(parameters), " parameters; ",
                         setup_.train->size_text(), " to train on; ", num_threads(),
                         " threads a rank; measured GEMM rate of all ranks ", static_cast<int64_t>(rate / 1e9),
                         " GFLOP/s"));
    for (const std::string& note : setup_.notes) reporter_->note(note);
    if (!new_head_.empty() && resumed_from_.empty())
      reporter_->note(text(config_.model.from, " lacks ", new_head_, ": new, from run.seed"));
    if (threads_.pinned) reporter_->note(threads_.where);
    for (const std::string& warning : setup_.plan.warnings) reporter_->warning(warning);
    if (config_.run.pin == PinMode::kOn && unpinned_ranks_ > 0)
      reporter_->warning(text("run.pin=on, but the threads of ", unpinned_ranks_, " of ", world_.size(),
                              " ranks are not pinned", threads_.why_not.empty() ? "" : "; rank 0: ", threads_.why_not));
    if (!place_.warning.empty()) reporter_->warning(place_.warning);
    if (!tuning_note_.empty()) reporter_->warning(tuning_note_);
    if (!resumed_from_.empty()) reporter_->note(text("going on from ", resumed_from_, " at step ", state_.step));
  }

  int loop() {
    double interval_s = 0;
    int64_t interval_tokens = 0, interval_steps = 0;
    Clock::time_point last_save = Clock::now();
    while (state_.step < setup_.total_steps) {
      // One word to all each step: a signal came to some rank; rank 0's clock says it is time to save.
      const bool due = config_.checkpoint.every_minutes > 0 &&
                       seconds_since(last_save) >= 60 * config_.checkpoint.every_minutes;
      Tensor word = tensor_of<int32_t>({hooks_.stop_requested && hooks_.stop_requested(), rank0() && due}, {2});
      world_.all_reduce(word, ReduceOp::kMax);
      if (word.data<int32_t>()[0]) {
        if (rank0()) reporter_->note(text("stopping on a signal after step ", state_.step, ": saving"));
        save(true);
        return kExitSaved;
      }
      profile_from(state_.step + 1);
      const Clock::time_point begin = Clock::now();
      if (threads_.pinned) threads_.pinned->renew();
      if (hooks_.step) hooks_.step(state_.step + 1);
      activity("loading data");
      const std::vector<TokenBatch> batches = load_batches(*setup_.train, plan_, state_.samples);
      times_.data += seconds_since(begin);
      profile("data", begin);
      const double tp_before = mesh_.tp().stats().blocked_s;
      const double rate = schedule_.at(state_.step + 1);
      const StepResult result = step_->run(batches, rate, state_.updates + 1);
      const double tp_s = mesh_.tp().stats().blocked_s - tp_before;
      times_.compute += std::max(0.0, result.pipeline.busy_s - tp_s);
      times_.communication += tp_s + result.reduce_s;
      times_.bubble += result.pipeline.wait_s;
      times_.optimizer += result.optimizer_s;

      ++state_.step;
      state_.loss_scale = step_->loss_scale();
      state_.samples += plan_.global_batch;
      state_.updates += !result.skipped;
      state_.skipped_in_a_row = result.skipped ? state_.skipped_in_a_row + 1 : 0;
      state_.tokens += result.skipped ? 0 : result.tokens;
      if (state_.first_loss == 0 && std::isfinite(result.loss)) state_.first_loss = result.loss;
      if (!result.skipped) last_loss_ = result.loss;
      profile("step", begin);
      const double step_s = seconds_since(begin);
      state_.train_s += result.skipped ? 0 : step_s;
      interval_s += step_s;
      interval_tokens += result.tokens;
      ++interval_steps;
      const bool last = state_.step == setup_.total_steps;
      const bool log = last || state_.step == 1 || state_.step % config_.run.log_every_steps == 0;
      if (log) {
        // Peak memory of the largest rank.
        Tensor memory = tensor_of<int64_t>({static_cast<int64_t>(peak_bytes(place_.device))}, {1});
        world_.all_reduce(memory, ReduceOp::kMax);
        peak_memory_ = static_cast<size_t>(memory.data<int64_t>()[0]);
      }
      if (rank0()) {
        const double tokens_per_s = static_cast<double>(interval_tokens) / interval_s;
        reporter_->step({state_.step, result.loss, rate, result.grad_norm, state_.tokens, tokens_per_s,
                         tokens_per_s * flops_share_, step_s, peak_memory_,
                         interval_s / static_cast<double>(interval_steps) *
                             static_cast<double>(setup_.total_steps - state_.step),
                         result.skipped},
                        log);
        if (result.skipped)
          reporter_->warning(text("step ", state_.step, ": loss ", result.loss, ", gradient norm ", result.grad_norm,
                                  ": skipped, nothing was changed",
                                  config_.train.dtype == DType::kF16 ? text("; the loss scale is ", state_.loss_scale.value, " now")
                                                                     : ""));
      }
      if (log) interval_s = static_cast<double>(interval_tokens = interval_steps = 0);
      if (state_.skipped_in_a_row > config_.train.max_skipped_steps) {
        if (rank0())
          reporter_->warning(text("more than train.max_skipped_steps=", config_.train.max_skipped_steps,
                                  " steps in a row had NaN or Inf: giving up; lower train.learning_rate, or look at "
                                  "the data of samples ", state_.samples - plan_.global_batch, " on"));
        return kExitValidationFailed;
      }

      bool stop = false, best = false;
      if (setup_.validation && (last || setup_.plan.evaluates_after(state_.step))) stop = evaluate(best);
      const int64_t save_every = config_.checkpoint.every_steps;
      report_save(checkpointer_->poll());
      if (word.data<int32_t>()[1] || (save_every && state_.step % save_every == 0) || state_.step == retry_at_ ||
          (best && config_.checkpoint.keep_best)) {
        best_pending_ = best;
        save(false);
        last_save = Clock::now();
      }
      if (config_.sample.every_steps && state_.step % config_.sample.every_steps == 0) write_samples();
      if (stop) {
        if (rank0())
          reporter_->note(text("early stopping at step ", state_.step, ": no gain in ",
                               state_.evaluations_without_gain, " evaluations; best ", best_value(), " at step ",
                               state_.best_step));
        break;
      }
    }
    const bool trained = state_.step > start_step_;
    if (trained && config_.checkpoint.save_at_end && saved_step_ != state_.step) save(true);
    return kExitDone;
  }

  // Profiled are profile.steps steps, and what comes between them.
  void profile_from(int64_t step) {
    const ProfileSection& p = config_.profile;
    if (p.steps == 0) return;
    const int64_t fits = std::max<int64_t>(1, setup_.total_steps - start_step_ - p.steps + 1);
    const int64_t first = p.start_step ? p.start_step : start_step_ + std::min<int64_t>(3, fits);
    if (step == first) {
      activity("measuring rates for the profile");
      profiler_ = std::make_unique<Profiler>(mesh_, gemm_rate_, place_.device);
      profiler_->attach();
      step_->set_profiler(profiler_.get());
    }
    if (step == first + p.steps) end_profile();
    if (profiler_) profiler_->begin_step(step);
  }
  void profile(const char* phase, Clock::time_point begin) {
    if (profiler_) profiler_->phase(phase, begin, Clock::now());
  }
  void end_profile() {
    if (!profiler_) return;
    step_->set_profiler(nullptr);
    profiler_->detach();
    try {
      const std::string table = profiler_->write(config_.run.dir);
      if (rank0())
        reporter_->note(text(table, "profile written to ", config_.run.dir, "/profile: open timeline.json in "
                             "ui.perfetto.dev or chrome://tracing"));
    } catch (const FileError& e) {
      reporter_->warning(text("profile: ", e.what()));
    }
    profiler_.reset();
  }

  // Returns whether early stopping says so; `best` whether this is the best evaluation so far.
  bool evaluate(bool& best) {
    const Clock::time_point begin = Clock::now();
    activity("evaluation");
    EvaluationMetrics r = setup_.task ? evaluate_task_scores() : evaluate_loss();
    const EarlyStopping& early = config_.train.early_stopping;
    double metric = followed() == kTrainLoss ? last_loss_ : r.loss;
    for (const auto& [name, score] : r.scores)
      if (name == followed()) metric = -score;
    best = metric < state_.best_metric - early.min_delta;
    if (best) {
      state_.best_metric = metric;
      state_.best_step = state_.step;
      state_.evaluations_without_gain = 0;
    } else {
      ++state_.evaluations_without_gain;
    }
    state_.best_validation_loss = std::min(state_.best_validation_loss, r.loss);
    times_.evaluation += seconds_since(begin);
    profile("evaluation", begin);
    r.best = best;
    if (rank0()) reporter_->evaluation(r);
    if (best || !config_.checkpoint.keep_best || scores_.empty()) {
      scores_ = r.scores;
      scores_.emplace_back("loss", r.loss);
    }
    return early.patience > 0 && state_.evaluations_without_gain >= early.patience;
  }

  const std::string& followed() const {
    const EarlyStopping& early = config_.train.early_stopping;
    return early.patience > 0 ? early.metric : config_.checkpoint.best_metric;
  }
  // best_metric is kept so that the lowest is the best.
  double best_value() const {
    return followed() == kTrainLoss || followed() == kValidationLoss ? state_.best_metric : -state_.best_metric;
  }

  EvaluationMetrics evaluate_loss() {
    const int64_t count = setup_.validation_samples(config_);
    const EvaluationResult r = step_->evaluate(load_evaluation(*setup_.validation, plan_, 0, count));
    return {state_.step, r.loss, false, {}};
  }
  // Rank 0 judges; every rank learns the scores. The reports of the last evaluation lie in run.dir/evaluation.
  EvaluationMetrics evaluate_task_scores() {
    const TaskEvaluation e = evaluate_task(world_, model_, *setup_.validation_data, *setup_.validation, plan_,
                                           setup_.validation_samples(config_), step_->evaluated_loss(), hooks_.activity);
    const std::vector<std::string> names = setup_.task->metric_names(setup_.task_options);
    std::string values(names.size() * sizeof(double), '\0');
    agreed(world_, [&] {
      if (!rank0()) return;
      const TaskScores scores = setup_.task->score(*setup_.validation_data, setup_.model.head, setup_.task_options, e.outputs);
      for (size_t i = 0; i < names.size(); ++i)
        std::memcpy(values.data() + i * sizeof(double), &scores.metrics.at(i).second, sizeof(double));
      write_reports(scores);
    });
    values = world_.broadcast_string(values, 0);
    EvaluationMetrics r{state_.step, e.loss, false, {}};
    for (size_t i = 0; i < names.size(); ++i) {
      double score;
      std::memcpy(&score, values.data() + i * sizeof score, sizeof score);
      r.scores.emplace_back(names[i], score);
    }
    return r;
  }
  void write_reports(const TaskScores& scores) {
    const std::filesystem::path folder = std::filesystem::path(config_.run.dir) / "evaluation";
    try {
      std::filesystem::create_directories(folder);
      write_file_atomically(folder / "report.txt", scores.report);
      for (const auto& [name, content] : scores.files) write_file_atomically(folder / name, content);
    } catch (const std::exception& e) {
      reporter_->warning(text("the reports of this evaluation are not written: ", e.what()));
    }
  }

  void save(bool wait) {
    const Clock::time_point begin = Clock::now();
    activity("saving a checkpoint");
    state_.total_s = earlier_s_ + seconds_since(started_);
    report_save(checkpointer_->save(state_, best_pending_));
    best_pending_ = false;
    saved_step_ = state_.step;
    if (wait || !config_.checkpoint.async) report_save(checkpointer_->finish());
    times_.checkpoint += seconds_since(begin);
    profile("checkpoint", begin);
  }

  void report_save(const std::optional<SaveOutcome>& outcome) {
    if (!outcome) return;
    if (!outcome->ok) {
      retry_at_ = state_.step + kRetrySteps;
      saved_step_ = -1;
    }
    if (!rank0()) return;
    if (outcome->ok && !outcome->message.empty()) reporter_->warning(outcome->message);
    if (outcome->ok)
      reporter_->note(text("saved ", outcome->path.string(), " (", outcome->num_bytes >> 20, " MiB, training waited ",
                           static_cast<int64_t>(outcome->copy_s * 1000), " ms, written in ",
                           static_cast<int64_t>(outcome->write_s * 1000), " ms)"));
    else
      reporter_->warning(text("checkpoint of step ", outcome->step, " failed, the one before is kept: ",
                              outcome->message, "; trying again at step ", retry_at_));
  }

  void write_samples() {
    if (!hooks_.samples || config_.sample.prompts.empty()) return;
    activity("writing samples");
    const std::vector<std::string> texts = hooks_.samples(model_);
    if (rank0())
      for (const std::string& t : texts) reporter_->note(text("sample at step ", state_.step, ": ", t));
  }

  void finish(int code) {
    report_save(checkpointer_->finish());
    end_profile();
    if (code == kExitDone) write_samples();
    if (code == kExitDone && hooks_.scores && !scores_.empty()) hooks_.scores(scores_);
    const RunTimes mean = mean_over(world_, times_);
    if (!rank0()) return;
    if (state_.step == start_step_) {
      reporter_->note(text("nothing left to train: the run of ", setup_.total_steps, " steps is at step ", state_.step));
      return;
    }
    RunSummary s;
    s.steps = state_.step;
    s.tokens = state_.tokens;
    s.total_s = seconds_since(started_);
    put_times(mean, s);
    s.tokens_per_s = state_.train_s > 0 ? static_cast<double>(state_.tokens) / state_.train_s : 0;
    s.mfu = s.tokens_per_s * flops_share_;
    s.earlier_s = earlier_s_;
    s.effective_time_ratio = state_.train_s / (earlier_s_ + s.total_s);
    s.peak_memory_bytes = peak_memory_;
    s.first_loss = state_.first_loss;
    s.last_loss = last_loss_;
    s.best_validation_loss = state_.best_validation_loss;
    s.scores = scores_;
    reporter_->summary(s);
  }

  static constexpr int64_t kRetrySteps = 20;  // after a save that failed

  Communicator& world_;
  RankThreads& threads_;
  const ChosenDevice place_;
  const RunConfig& config_;
  const RunSetup& setup_;
  const TrainHooks& hooks_;
  const Clock::time_point started_;
  std::unique_ptr<Profiler> profiler_;  // while steps are profiled; outlives the groups that it watches
  Mesh mesh_;
  ShardedModel model_;
  ParameterBuckets buckets_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<Checkpointer> checkpointer_;
  std::unique_ptr<Reporter> reporter_;
  BatchPlan plan_;
  LearningRateSchedule schedule_;
  RunState state_;
  RunTimes times_;
  std::string resumed_from_, tuning_note_, new_head_;
  std::vector<std::pair<std::string, double>> scores_;  // of the evaluation that counts
  double gemm_rate_ = 0;  // of this rank
  double flops_share_ = 0, last_loss_ = 0, earlier_s_ = 0;
  size_t peak_memory_ = 0;
  int unpinned_ranks_ = 0;
  int64_t start_step_ = 0, retry_at_ = -1, saved_step_ = -1;
  bool best_pending_ = false;
};

}  // namespace

int train(Communicator& world, const RunConfig& config, const TrainHooks& hooks) {
  std::unique_ptr<RunSetup> setup;
  agreed(world, [&] { setup = std::make_unique<RunSetup>(config, world.size()); });
  const ChosenDevice place = choose_device(config.run.device, "run.device", world);
  agreed(world, [&] { require_precision(config.run.matmul_precision, place.device); });
  RankThreads threads(world, config.run);  // before memory is taken: it lies near the core that first writes it
  // Memory is taken here: a rank that has too little says so to all.
  std::unique_ptr<Run> run;
  agreed(world, [&] { run = std::make_unique<Run>(world, config, *setup, place, hooks, threads); });
  return run->run();
}

}  // namespace trireme
