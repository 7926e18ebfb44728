#include <iomanip>
#include <sstream>

#include "model/cost.h"
#include "trainer/model_section.h"
#include "trainer/train.h"
#include "trainer/validate.h"

namespace trireme {
namespace {

std::string mib(double bytes) {
  std::ostringstream s;
  s << std::fixed << std::setprecision(1) << bytes / (1 << 20) << " MiB";
  return s.str();
}

}  // namespace

std::string dry_run(const RunConfig& config, int world_size) {
  const ModelConfig model = load_model_config(config);
  RunEnvironment environment;
  environment.world_size = world_size;
  if (config.train.epochs) environment.samples_per_epoch = 1;  // counted in samples of one epoch each
  const RunPlan plan = validate(config, model, environment);
  const ParameterCounts n = count_parameters(model);
  const double tp = static_cast<double>(config.parallel.tensor), pp = static_cast<double>(config.parallel.pipeline),
               dp = plan.data_ranks;
  // The largest rank: the first stage has the embedding; layers are dealt out evenly enough for an estimate.
  const double held = (static_cast<double>(n.layers) / pp + static_cast<double>(n.embedding + n.head)) / tp;
  const double element = static_cast<double>(size_of(config.train.dtype));
  const double weights = held * element;
  const double gradients = held * 4 / (config.parallel.zero == 2 ? dp : 1);
  const double states = held * 4 * ((config.train.optimizer == "adamw" ? 2 : config.train.momentum > 0 ? 1 : 0) +
                                    (config.train.dtype == DType::kF32 ? 0 : 1)) / (config.parallel.zero ? dp : 1);
  const double live = std::min<double>(static_cast<double>(plan.micro_batches), pp);  // 1F1B's first stage
  ActivationPlan kept;
  kept.tokens = plan.tokens_per_micro_batch;
  kept.layers = static_cast<double>(model.num_hidden_layers) / pp;
  kept.head = pp == 1;
  kept.live = config.parallel.schedule == "gpipe" ? static_cast<double>(plan.micro_batches) : live;
  kept.tensor_ranks = static_cast<int>(tp);
  kept.sequence_parallel = config.parallel.sequence;
  kept.recompute = static_cast<int>(config.train.recompute);
  kept.bytes = static_cast<int>(element);
  const double activations = activation_bytes(model, kept);
  std::ostringstream out;
  out << describe_plan(config, plan);
  out << "model: " << model.model_type << ", " << n.total() << " parameters (embedding " << n.embedding << ", layers "
      << n.layers << ", output " << n.head << ")\n";
  out << "work: " << training_flops_per_token(model, config.data.sequence_length) *
                         static_cast<double>(plan.tokens_per_step) / 1e12
      << " TFLOP a step over all ranks\n";
  out << "memory of the largest rank, counted: weights " << mib(weights) << ", gradients " << mib(gradients)
      << ", optimizer " << mib(states) << ", activations " << mib(activations) << "; together "
      << mib(weights + gradients + states + activations) << "\n";
  for (const std::string& w : plan.warnings) out << "warning: " << w << "\n";
  return out.str();
}

}  // namespace trireme
