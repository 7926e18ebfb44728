#include "launch/doctor_tune.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/files.h"
#include "comm/collective_timing.h"
#include "parallel/mesh.h"
#include "trainer/agreed.h"
#include "trainer/machine_rates.h"
#include "trainer/model_section.h"
#include "trainer/tuning.h"

namespace trireme {
namespace {

ModelConfig gpt2_124m() {
  ModelConfig gpt2;
  gpt2.model_type = "gpt2";
  gpt2.vocab_size = 50257;
  gpt2.hidden_size = 768;
  gpt2.num_attention_heads = gpt2.num_key_value_heads = 12;
  gpt2.head_dim = 64;
  gpt2.intermediate_size = 3072;
  return gpt2;
}

// Adds the timings of `group` unless groups of its shape are there already. Collective over `world`.
void add_timings(Communicator& world, Communicator& group, std::vector<CollectiveTiming>& timings) {
  const bool known = std::any_of(timings.begin(), timings.end(),
                                 [&](const CollectiveTiming& t) { return t.which.group == group.shape(); });
  const Tensor unknown = tensor_of<int32_t>({!known}, {1});
  world.all_reduce(unknown, ReduceOp::kMax);
  if (!*unknown.data<int32_t>()) return;
  for (CollectiveTiming& timing : time_collectives(world, group)) timings.push_back(std::move(timing));
}

}  // namespace

void tune(Communicator& world, const std::string& file, const std::string& config, const Words& overrides, int threads) {
  std::optional<RunConfig> run;
  std::vector<GemmShape> shapes;
  MeshShape layout;
  agreed(world, [&] {
    if (config.empty()) {
      shapes = training_products(gpt2_124m(), 1024, 1, DType::kF32);
      return;
    }
    run = load_run_config(config, overrides);
    shapes = training_products(load_model_config(*run), run->train.micro_batch * run->data.sequence_length,
                               run->parallel.tensor, run->train.dtype);
    layout.tp = static_cast<int>(run->parallel.tensor);
    layout.pp = static_cast<int>(run->parallel.pipeline);
    layout.dp = static_cast<int>(run->parallel.data ? run->parallel.data : std::max(1, world.size() / (layout.tp * layout.pp)));
  });
  std::vector<CollectiveTiming> timings;
  if (world.size() > 1 && run) {
    const Mesh mesh(world, layout);
    for (Communicator* group : {&world, &mesh.tp(), &mesh.dp()}) add_timings(world, *group, timings);
  } else if (world.size() > 1) {
    const std::vector<std::string> hosts = world.all_gather_strings(host_place(world).host);
    const auto here = std::find(hosts.begin(), hosts.end(), hosts[static_cast<size_t>(world.rank())]) - hosts.begin();
    const auto host = world.split(static_cast<int>(here), world.rank(), "host");
    for (Communicator* group : {&world, host.get()}) add_timings(world, *group, timings);
  }
  Tuning tuning;
  choose_fastest(timings, tuning.collectives);
  world.barrier();
  tuning.products = measure_gemm(shapes);  // by all ranks at once, as in a run; rank 0's are kept
  agreed(world, [&] {
    if (world.rank() != 0) return;
    write_file_atomically(file, tuning.to_text());
    std::printf("%s: the library for %zu products at %d threads", file.c_str(), shapes.size(), threads);
    if (!timings.empty())
      std::printf(", and ways for %zu sizes of collectives:\n%s", timings.size(), describe(timings, tuning.collectives).c_str());
    else
      std::printf("; collectives %s\n", world.size() == 1 ? "are measured under mpirun" : "of these groups have one way each");
    std::printf("give it to a run as run.tuning=%s\n", file.c_str());
  });
}

}  // namespace trireme
