#include "launch/host_facts.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tensor/cpu/isa.h"
#include "tensor/gemm_table.h"

namespace trireme {
namespace {

// Files of /proc and /sys have no size: read to the end, within reason. "" where there is none.
std::string read_system_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(1 << 20, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, in.gcount())));
  return text;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string cpu_name() {
  const std::string info = read_system_file("/proc/cpuinfo");
  const size_t at = info.find("model name");
  if (at == info.npos) return "unknown";
  const size_t colon = info.find(": ", at), end = info.find('\n', at);
  return colon < end ? info.substr(colon + 2, end - colon - 2) : "unknown";
}

}  // namespace

std::string chosen_word(std::string_view text) {
  const size_t open = text.find('['), close = text.find(']');
  return open == text.npos || close == text.npos || close < open ? "" : std::string(text.substr(open + 1, close - open - 1));
}

int64_t meminfo_bytes(std::string_view text, std::string_view key) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (line.size() <= key.size() || !line.starts_with(key) || line[key.size()] != ':') continue;
    line.remove_prefix(key.size() + 1);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    int64_t kib = 0;
    const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), kib);
    return error == std::errc() && kib >= 0 && kib < INT64_MAX / 1024 ? kib * 1024 : 0;
  }
  return 0;
}

double quota_of(std::string_view cpu_max) {
  std::istringstream words{std::string(cpu_max)};
  double quota = 0, period = 0;
  return words >> quota >> period && quota > 0 && period > 0 ? quota / period : 0;
}

HostFacts read_host_facts() {
  HostFacts f;
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  f.name = name;
  f.cpu = cpu_name();
  f.isa = cpu::isa() == cpu::Isa::kAvx512 ? "avx512" : cpu::isa() == cpu::Isa::kAvx2 ? "avx2" : "plain";
  const Bf16Units units = detect_bf16_units();
  f.bf16 = units == Bf16Units::kAmx ? "amx" : units == Bf16Units::kDotProduct ? "dot product" : "none";
  f.cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  f.quota_cores = quota_of(read_system_file("/sys/fs/cgroup/cpu.max"));
  f.governor = first_line(read_system_file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  const std::string memory = read_system_file("/proc/meminfo");
  f.memory_bytes = meminfo_bytes(memory, "MemTotal");
  f.available_bytes = meminfo_bytes(memory, "MemAvailable");
  f.huge_pages = chosen_word(read_system_file("/sys/kernel/mm/transparent_hugepage/enabled"));
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) == 0) f.shared_memory_bytes = static_cast<int64_t>(shm.f_blocks * shm.f_frsize);
  f.openblas = gemm_available(GemmBackend::kOpenBlas, {});
  f.openblas_coretype = environment("OPENBLAS_CORETYPE");
  f.isa_override = environment("TRIREME_ISA");
  return f;
}

std::vector<Finding> find_problems(const HostFacts& host, const JobFacts& job, const MachineRates& rates,
                                   const ProductRates& products) {
  std::vector<Finding> found;
  const auto add = [&](std::string what, std::string why, std::string action) {
    found.push_back({std::move(what), std::move(why), std::move(action)});
  };
  const int usable = host.quota_cores > 0 ? std::max(1, static_cast<int>(host.quota_cores)) : host.cores;
  if (job.ranks_per_host > usable)
    add(text(job.ranks_per_host, " ranks share ", usable, " cores of a host"),
        "ranks take turns, and each collective waits for the one that is not running",
        text("start at most ", usable, " ranks a host; a rank uses several threads if there are fewer"));
  if (host.quota_cores > 0 && host.quota_cores < host.cores)
    add(text("the control group allows ", host.quota_cores, " of the ", host.cores, " cores"),
        "threads beyond the quota are stopped for part of each 100 ms, and all others wait for them",
        text("raise the container's CPU limit, or set run.threads so that ranks * threads <= ", usable));
  for (size_t r = 0; r < job.rank_facts.size(); ++r) {
    const RankFacts& rank = job.rank_facts[r];
    if (rank.threads > rank.allowed_cores) {
      add(text("rank ", r, " is bound to ", rank.allowed_cores, rank.allowed_cores == 1 ? " core" : " cores",
               " and has ", rank.threads, " threads"),
          "its threads take turns on the same core",
          "start with mpirun --bind-to none, or --map-by slot:PE=N for N threads a rank, or set run.threads");
      break;
    }
    if (job.by_launcher && rank.allowed_cores == 1 && usable / std::max(1, job.ranks_per_host) >= 2) {
      add(text("rank ", r, " is bound to one core of a host with ", usable, " cores for ", job.ranks_per_host,
               job.ranks_per_host == 1 ? " rank" : " ranks"),
          "the other cores are idle: mpirun binds each rank to a core by default",
          "start with mpirun --bind-to none, or --map-by slot:PE=N with N cores a rank");
      break;
    }
  }
  if (job.hosts == 1) {
    std::set<std::vector<int>> cores;
    bool narrow = false;
    for (const RankFacts& rank : job.rank_facts) {
      narrow |= rank.allowed_cores == 1;
      cores.insert(rank.first_cores);
    }
    if (narrow && cores.size() < job.rank_facts.size())
      add("several ranks are bound to the same core", "they take turns on it", "start with mpirun --bind-to none");
  }
  if (!host.isa_override.empty())
    add("TRIREME_ISA=" + host.isa_override + " is set: kernels use " + host.isa,
        "it lowers the instruction set, for tests", "unset TRIREME_ISA");
  if (host.isa == "plain" && host.isa_override.empty())
    add("the processor has no AVX2", "row-wise ops and attention run with 4 numbers at once instead of 8 or 16",
        "use hosts with AVX2 or AVX-512; results are the same");
  if (host.isa == "avx2" && host.isa_override.empty())
    add("the processor has no AVX-512", "row-wise ops and attention run with 8 numbers at once instead of 16",
        "nothing: results are the same; hosts with AVX-512 are faster");
  if (rates.gemm_bf16 > 0 && rates.gemm_bf16 < rates.gemm_f32)
    add("products in bf16 are slower than in f32", "the processor has no fast units for bf16 (here: " + host.bf16 + ")",
        "use train.dtype=f32 here unless memory is short");
  if (!host.openblas_coretype.empty())
    add("OPENBLAS_CORETYPE=" + host.openblas_coretype + " is set",
        "OpenBLAS then uses the kernels of that processor; without it, those that fit are chosen", "unset OPENBLAS_CORETYPE");
  if (products.openblas_f32 > 0 && products.openblas_f32 < 0.4 * products.chosen_f32)
    add(text("OpenBLAS runs at ", static_cast<int>(100 * products.openblas_f32 / products.chosen_f32),
             " % of the rate of the library chosen for the same product"),
        "it takes the processor for another one, as releases older than the processor do",
        "nothing for runs, which do not choose it; for other programs set OPENBLAS_CORETYPE=SkylakeX (AVX-512) or Haswell");
  if (host.huge_pages == "never")
    add("transparent huge pages are off", "weights then need 512 times the page-table entries: slower products and optimizer",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)");
  if (host.governor == "powersave")
    add("the clock governor is powersave", "cores may stay below their clock under short bursts of work",
        "cpupower frequency-set -g performance (as root)");
  if (job.by_launcher && job.ranks_per_host > 1 && host.shared_memory_bytes < int64_t{64} << 20)
    add(text("/dev/shm has ", host.shared_memory_bytes >> 20, " MiB"),
        "MPI keeps its own segments there and may fail to start more ranks (ours are not there)",
        "give the container more: docker run --shm-size=1g");
  if (host.available_bytes > 0 && host.available_bytes / std::max(1, job.ranks_per_host) < int64_t{1} << 30)
    add(text("a rank has ", host.available_bytes / std::max(1, job.ranks_per_host) >> 20, " MiB of free memory"),
        "weights, gradients and AdamW's moments of a parameter are 16 bytes", "start fewer ranks a host, or use parallel.zero");
  for (const auto& [group, where] : {std::pair(&rates.within_host, "a host"), {&rates.between_hosts, "the hosts"}}) {
    if (!*group) continue;
    const double latency = (*group)->of(CollectiveKind::kAllReduce).latency_s;
    if (latency > 2e-4)
      add(text("a hop of a collective between ranks of ", where, " takes ", static_cast<int64_t>(latency * 1e6), " us"),
          "tensor parallelism has four collectives a layer and micro-batch",
          "look for ranks that share cores with other work; keep parallel.tensor within a host");
  }
  return found;
}

}  // namespace trireme
