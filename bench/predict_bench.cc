// The predicted step of --dry-run beside the measured one, at every layout of one axis:
//   predict_bench [batch=2] [length=256] [hidden=512] [layers=8]                     one process
//   mpirun -np 2 --bind-to none predict_bench ...                                    data, tensor and pipeline ranks
// The global batch is 4 micro-batches of `batch` sequences a data rank. Rates are measured right before, by the same ranks.
// The prediction stands in the place of the floor.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "bench/arguments.h"
#include "bench/row.h"
#include "bench/workload.h"
#include "comm/mpi.h"
#include "tensor/threads.h"
#include "trainer/model_section.h"
#include "trainer/predict.h"
#include "trainer/train_step.h"

namespace trireme {
namespace {

// The median of a few steps of the slowest rank.
double measured(Communicator& world, const RunConfig& config, const ModelConfig& model_config, const RunPlan& plan) {
  MeshShape shape;
  shape.tp = static_cast<int>(config.parallel.tensor);
  shape.pp = static_cast<int>(config.parallel.pipeline);
  shape.dp = plan.data_ranks;
  const Mesh mesh(world, shape);
  ShardedModel model(model_config, mesh, {1, plan.layers_per_stage, false});
  ParameterBuckets buckets(model.parameters(), mesh,
                           {static_cast<int>(config.parallel.zero), config.parallel.bucket_mb << 20, DType::kF32, {}});
  model.initialize(1);
  Optimizer optimizer(buckets, {.weight_decay = 0.1});
  TrainStep train(model, buckets, optimizer, {});
  std::vector<TokenBatch> batches;
  for (int64_t m = 0; m < plan.micro_batches; ++m)
    batches.push_back(random_batch(config.train.micro_batch, config.data.sequence_length, model_config.vocab_size,
                                   static_cast<uint64_t>(m + 100 * mesh.dp().rank())));
  std::vector<double> seconds;
  for (int step = 1; step <= 7; ++step) {
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    train.run(batches, 1e-4, step);
    world.barrier();
    if (step > 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return median(seconds);
}

int run(Communicator& world, const BenchArguments& args) {
  const int64_t batch = args.number("batch", 2), length = args.number("length", 256), hidden = args.number("hidden", 512),
                layers = args.number("layers", 8);
  set_num_threads(threads_for(world.size()));
  const int n = world.size();
  const MachineRates rates = measure_machine_rates(world, num_threads());
  std::vector<std::vector<std::string>> layouts = {{}};
  if (n > 1)
    layouts = {{}, {"parallel.zero=1"}, {text("parallel.tensor=", n)}, {text("parallel.pipeline=", n)},
               {text("parallel.pipeline=", n), "parallel.schedule=zb-h1"}};
  for (std::vector<std::string>& overrides : layouts) {
    std::string name = text(n, " ranks");
    bool data = true;
    for (const std::string& o : overrides) {
      name += " " + o.substr(o.find('.') + 1);
      data &= o.find("tensor") == o.npos && o.find("pipeline") == o.npos;
    }
    if (n > 1 && overrides.empty()) name += text(" data=", n);
    overrides.push_back(text("train.global_batch=", 4 * batch * (data ? n : 1)));
    const RunConfig config = parse_run_config(
        text("model: {model_type: gpt2, vocab_size: 8192, n_embd: ", hidden, ", n_layer: ", layers,
             ", n_head: ", hidden / 64, ", n_positions: ", length,
             ", embd_pdrop: 0, attn_pdrop: 0, resid_pdrop: 0}\ndata: {train: none, sequence_length: ", length,
             "}\ntrain: {steps: 1, micro_batch: ", batch, "}\n"),
        "predict_bench", overrides);
    const ModelConfig model = load_model_config(config);
    const RunPlan plan = validate(config, model, {n, std::nullopt});
    const double ours = measured(world, config, model, plan);
    const StepPrediction p = predict(config, model, plan, rates, rates.ranks_per_host).step;
    if (world.rank() == 0) {
      std::printf("%s: predicted compute %.4f, tensor %.4f, bubble %.4f, data %.4f, optimizer %.4f s\n", name.c_str(),
                  p.compute_s, p.tensor_s, p.bubble_s, p.data_s, p.optimizer_s);
      print_row({.bench = "predict", .what = "step measured against predicted, " + name, .ours_s = ours, .floor_s = p.total_s});
    }
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    const trireme::BenchArguments args(argc, argv, {"batch", "length", "hidden", "layers"});
    if (!trireme::started_by_mpi_launcher()) {
      const auto world = trireme::make_self_communicator("world");
      return trireme::run(*world, args);
    }
    trireme::MpiEnvironment mpi;
    const auto world = trireme::make_mpi_world();
    return trireme::run(*world, args);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "predict_bench: %s\n", e.what());
    return 2;
  }
}
