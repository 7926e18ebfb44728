// What this machine and job are, how fast, and what is wrong with them.

#include <algorithm>
#include <cstdio>

#include "base/files.h"
#include "base/json.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/doctor_cuda.h"
#include "launch/doctor_tune.h"
#include "launch/host_facts.h"
#include "parallel/tensor_collectives.h"
#include "tensor/threads.h"
#include "trainer/agreed.h"
#include "trainer/model_section.h"
#include "trainer/rank_cores.h"
#include "trainer/tuning.h"

namespace trireme {
namespace {

namespace json = boost::json;

constexpr char kHelp[] =
    "usage: trireme doctor [--json] [--threads N]\n"
    "       trireme doctor --tune=FILE [--config CONFIG [key.path=value ...]] [--threads N]\n\n"
    "Prints processor, memory, MPI and binding of this host; measures products, memory and, under mpirun, collectives over\n"
    "its ranks; the same of CUDA devices, where there are any; and says what is wrong, why it matters and what to do. About half a minute.\n\n"
    "  --json           as JSON, which train --dry-run --rates reads\n"
    "  --tune=FILE      measure which library is fastest for each product of a run (CONFIG's; default: GPT-2 124M with 1024\n"
    "                   tokens a micro-batch) and, under mpirun, which way is fastest for each collective, in the groups of\n"
    "                   CONFIG's layout (default: all ranks, and those of a host); write the choices to FILE, for run.tuning\n"
    "  --threads N      of a rank (default: as a run would have)\n\n"
    "examples:\n"
    "  mpirun -np 4 --bind-to none trireme doctor\n"
    "  mpirun -np 4 --bind-to none trireme doctor --json > rates.json\n"
    "  mpirun -np 2 trireme doctor --tune=tuning.txt --config configs/gpt2-124m.yaml parallel.tensor=2\n"
    "  mpirun -np 2 trireme train configs/gpt2-124m.yaml parallel.tensor=2 run.tuning=tuning.txt\n";

// Every rank's binding, on all ranks. Collective.
JobFacts job_facts(Communicator& world, int threads) {
  JobFacts job;
  const HostPlace place = host_place(world);
  job.ranks = world.size();
  job.ranks_per_host = place.ranks_on_host;
  job.hosts = place.num_hosts;
  job.by_launcher = started_by_mpi_launcher();
  if (job.by_launcher) job.mpi = mpi_library();
  const RankCores own = rank_cores(world);
  json::array numbers;
  for (size_t i = 0; i < std::min<size_t>(own.allowed.size(), 64); ++i) numbers.push_back(own.allowed[i]);
  const json::array mine = {threads, static_cast<int64_t>(own.allowed.size()), numbers, list_of_cores(own.share.cores),
                            why_not_pinned(own, PinMode::kAuto, threads)};
  for (const std::string& line : world.all_gather_strings(to_json(json::value(mine)))) {
    const json::value rank = parse_json(line, "binding of a rank");
    RankFacts facts{static_cast<int>(rank.at(0).as_int64()), static_cast<int>(rank.at(1).as_int64()), {}};
    for (const json::value& core : rank.at(2).as_array()) facts.first_cores.push_back(static_cast<int>(core.as_int64()));
    facts.share = rank.at(3).as_string();
    facts.unpinned = rank.at(4).as_string();
    job.rank_facts.push_back(std::move(facts));
  }
  return job;
}

struct ProductLine {
  GemmShape shape;
  double flops_per_s = 0;
  GemmBackend backend = GemmBackend::kOwn;
};

// A few shapes, with all ranks at work; the figures are rank 0's.
std::vector<ProductLine> measure_products(ProductRates& rates) {
  std::vector<GemmShape> shapes;
  for (DType t : {DType::kF32, DType::kBF16}) {
    shapes.push_back({false, true, 1024, 2304, 768, t, t});
    shapes.push_back({true, false, 3072, 768, 1024, t, DType::kF32});
    shapes.push_back({false, true, 1, 768, 3072, t, t});
  }
  std::vector<ProductLine> lines;
  for (const GemmTiming& timing : time_gemm(shapes, 5)) {
    const GemmShape& s = timing.shape;
    const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
    ProductLine line{s, 0, gemm_table().choose(s, timing.threads)};
    for (const auto& candidate : timing.candidates) {
      if (candidate.backend == line.backend) line.flops_per_s = flops / candidate.seconds;
      if (candidate.backend == GemmBackend::kOpenBlas && lines.empty()) rates.openblas_f32 = flops / candidate.seconds;
    }
    if (lines.empty()) rates.chosen_f32 = line.flops_per_s;
    lines.push_back(line);
  }
  return lines;
}

std::string gib(int64_t bytes) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f GiB", static_cast<double>(bytes) / (1 << 30));
  return out;
}

void print_text(const HostFacts& host, const JobFacts& job, const MachineRates& rates,
                const std::vector<ProductLine>& products, const CudaFacts& cuda, const std::vector<Finding>& findings) {
  std::printf("host       %s: %s, %d cores%s\n", host.name.c_str(), host.cpu.c_str(), host.cores,
              host.quota_cores > 0 ? text(" (", host.quota_cores, " by quota)").c_str() : "");
  std::printf("kernels    %s; bf16 products: %s; OpenBLAS %s\n", host.isa.c_str(), host.bf16.c_str(),
              host.openblas ? "found" : "not installed");
  std::printf("memory     %s, %s available; transparent huge pages: %s; /dev/shm: %s\n", gib(host.memory_bytes).c_str(),
              gib(host.available_bytes).c_str(), host.huge_pages.empty() ? "unknown" : host.huge_pages.c_str(),
              gib(host.shared_memory_bytes).c_str());
  std::printf("job        %d ranks on %d hosts, %d threads a rank; %s\n", job.ranks, job.hosts, rates.threads,
              job.by_launcher ? job.mpi.c_str() : "no MPI launcher");
  for (size_t r = 0; r < std::min<size_t>(job.rank_facts.size(), 8); ++r) {
    const RankFacts& rank = job.rank_facts[r];
    std::printf("  rank %zu   may run on %d %s: %s%s; its part: %s; threads %s%s\n", r, rank.allowed_cores,
                rank.allowed_cores == 1 ? "core" : "cores", list_of_cores(rank.first_cores).c_str(),
                rank.allowed_cores > static_cast<int>(rank.first_cores.size()) ? ",..." : "",
                rank.share.empty() ? "none" : rank.share.c_str(),
                rank.unpinned.empty() ? "pinned to it" : "not pinned: ", rank.unpinned.c_str());
  }
  std::printf("\na rank, all ranks at work at once, the slowest:\n");
  std::printf("  large product        f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s\n", rates.gemm_f32 / 1e9, rates.gemm_bf16 / 1e9);
  if (rates.gemm_bf16x3 > 0)
    std::printf("  by matmul_precision  bf16x3 %.0f GFLOP/s, bf16 %.0f GFLOP/s (f32 operands)\n", rates.gemm_bf16x3 / 1e9,
                rates.gemm_rounded / 1e9);
  if (rates.gemm_rounded_f16 > 0)
    std::printf("  by matmul_precision  f16 %.0f GFLOP/s (f32 operands)\n", rates.gemm_rounded_f16 / 1e9);
  std::printf("  attention            f32 %.0f GFLOP/s (512 rows, 12 heads of 64, causal, forward)\n", rates.attention / 1e9);
  std::printf("  memory               read %.1f GB/s, copy %.1f GB/s (read and written together)\n", rates.read / 1e9,
              rates.copy / 1e9);
  for (const ProductLine& p : products)
    std::printf("  product %-26s %7.1f GFLOP/s by %s\n", text(p.shape).c_str(), p.flops_per_s / 1e9,
                std::string(name_of(p.backend)).c_str());
  for (const auto& [group, where] : {std::pair(&rates.within_host, "within a host"), {&rates.between_hosts, "between hosts"}}) {
    if (!*group) continue;
    std::printf("\ncollectives %s, %d ranks: time = hops * latency + share * bytes / rate\n", where, (*group)->ranks);
    for (CollectiveKind kind : kCollectiveKinds) {
      const CallRate& call = (*group)->of(kind);
      std::printf("  %-16s %8.1f us %8.2f GB/s   (1 KiB: %.1f us, 8 MiB: %.2f ms)\n", name_of(kind), call.latency_s * 1e6,
                  call.bytes_per_s / 1e9, 1e6 * collective_seconds(kind, call, (*group)->ranks, 1024),
                  1e3 * collective_seconds(kind, call, (*group)->ranks, 8 << 20));
    }
  }
  print_text(cuda);
  std::printf("\n%s\n", findings.empty() ? "nothing wrong was found" : "found:");
  for (const Finding& f : findings)
    std::printf("- %s\n    why it matters: %s\n    what to do: %s\n", f.what.c_str(), f.why.c_str(), f.action.c_str());
}

json::object to_json_object(const HostFacts& host, const JobFacts& job, const MachineRates& rates,
                            const std::vector<ProductLine>& products, const CudaFacts& cuda,
                            const std::vector<Finding>& findings) {
  json::object o;
  o["host"] = {{"name", host.name}, {"cpu", host.cpu}, {"isa", host.isa}, {"bf16", host.bf16}, {"cores", host.cores},
               {"quota_cores", host.quota_cores}, {"memory_bytes", host.memory_bytes},
               {"available_bytes", host.available_bytes}, {"transparent_huge_pages", host.huge_pages},
               {"shared_memory_bytes", host.shared_memory_bytes}, {"openblas", host.openblas}};
  json::array ranks;
  for (const RankFacts& rank : job.rank_facts)
    ranks.push_back({{"threads", rank.threads}, {"allowed_cores", rank.allowed_cores}, {"cores", rank.share},
                     {"not_pinned", rank.unpinned}});
  o["job"] = {{"ranks", job.ranks}, {"ranks_per_host", job.ranks_per_host}, {"hosts", job.hosts}, {"mpi", job.mpi},
              {"rank_cores", std::move(ranks)}};
  o["rates"] = to_json(rates);
  json::array lines;
  for (const ProductLine& p : products)
    lines.push_back({{"shape", text(p.shape)}, {"flops_per_s", p.flops_per_s}, {"backend", std::string(name_of(p.backend))}});
  o["products"] = std::move(lines);
  o["cuda"] = to_json_object(cuda);
  json::array list;
  for (const Finding& f : findings) list.push_back({{"what", f.what}, {"why", f.why}, {"action", f.action}});
  o["findings"] = std::move(list);
  return o;
}

}  // namespace

int run_doctor(const Words& words) {
  const Arguments args(words, {"tune", "config", "threads"}, {"json", "help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  check<ConfigError>(args.has("tune") || !args.has("config"), "doctor: --config goes with --tune");
  check<ConfigError>(!args.has("tune") || !args.has("json"), "doctor: --json does not go with --tune, whose file is for run.tuning");
  check<ConfigError>(args.rest().empty() || args.has("config"), "doctor: \"", args.rest().empty() ? "" : args.rest()[0],
                     "\" is no option; see trireme doctor --help");
  // Open MPI's mpirun looks through the words of the program too, and hands all ranks FILE as a set of its own parameters.
  check<ConfigError>(!started_by_mpi_launcher() || std::find(words.begin(), words.end(), "--tune") == words.end(),
                     "doctor: under mpirun write --tune=FILE, as one word: mpirun has an option --tune of its own");
  const int64_t given = args.integer("threads", 0, 0, 4096);
  Job job(600);
  return job.run([&] {
    Communicator& world = job.world();
    const int threads = given ? static_cast<int>(given) : default_threads(rank_cores(world));
    set_num_threads(threads);
    if (const auto file = args.value("tune")) {
      tune(world, *file, args.value("config").value_or(""), args.rest(), threads);
      return 0;
    }
    const JobFacts facts = job_facts(world, threads);
    const MachineRates rates = measure_machine_rates(world, threads);
    ProductRates product_rates;
    world.barrier();
    const std::vector<ProductLine> products = measure_products(product_rates);
    world.barrier();
    const CudaFacts cuda = measure_cuda(world);
    if (world.rank() != 0) return 0;
    const HostFacts host = read_host_facts();
    std::vector<Finding> findings = find_problems(host, facts, rates, product_rates);
    for (Finding& f : find_problems(cuda)) findings.push_back(std::move(f));
    if (args.has("json"))
      std::fputs(to_json(json::value(to_json_object(host, facts, rates, products, cuda, findings)), JsonLayout::kIndented).c_str(),
                 stdout);
    else
      print_text(host, facts, rates, products, cuda, findings);
    return 0;
  });
}

}  // namespace trireme
