#include "trainer/machine_rates.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "comm/threads.h"
#include "tensor/cuda/devices.h"
#include "tensor/gemm_table.h"
#include "tensor/memory_rate.h"
#include "tensor/on_device.h"
#include "tensor/ops/attention.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

namespace json = boost::json;

constexpr int64_t kSmallBytes = 1024, kLargeBytes = int64_t{8} << 20;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Terms {
  double hops, share;  // of the latency, of the bytes
};
Terms terms_of(CollectiveKind kind, int ranks) {
  if (kind == CollectiveKind::kMessage) return {1, 1};
  const double hops = std::bit_width(static_cast<unsigned>(ranks - 1)), share = (ranks - 1.0) / ranks;
  return kind == CollectiveKind::kAllReduce ? Terms{2 * hops, 2 * share} : Terms{hops, share};
}

// One call of `kind` over a tensor of `bytes` bytes in all.
std::function<void()> call_of(CollectiveKind kind, Communicator& group, int64_t bytes, Device device) {
  const int n = group.size(), next = (group.rank() + 1) % n, previous = (group.rank() + n - 1) % n;
  const int64_t count = std::max<int64_t>(1, bytes / 4 / n) * n;
  const Tensor whole = zeros({count}, DType::kF32, device), other = zeros({count}, DType::kF32, device),
               part = zeros({count / n}, DType::kF32, device);
  switch (kind) {
    case CollectiveKind::kAllReduce: return [&group, whole] { group.all_reduce(whole); };
    case CollectiveKind::kAllGather: return [&group, whole, part] { group.all_gather(part, whole); };
    case CollectiveKind::kReduceScatter: return [&group, whole, part] { group.reduce_scatter(whole, part); };
    case CollectiveKind::kMessage: break;
  }
  return [&group, whole, other, next, previous] {
    Work in = group.recv(other, previous, 0), out = group.send(whole, next, 0);
    in.wait();
    out.wait();
  };
}

void wait_for(Device device) {
  if (device.kind != DeviceKind::kCpu) cuda::synchronize();
}

// The best of a few rounds, of the slowest rank.
double seconds_of(Communicator& group, const std::function<void()>& call, int repeats, Device device) {
  std::vector<double> rounds;
  for (int round = 0; round < 8; ++round) {
    group.barrier();
    const double start = now();
    for (int i = 0; i < repeats; ++i) call();
    wait_for(device);
    const Tensor t = tensor_of<int64_t>({static_cast<int64_t>((now() - start) * 1e9)}, {1});
    group.all_reduce(t, ReduceOp::kMax);
    if (round > 0) rounds.push_back(static_cast<double>(t.data<int64_t>()[0]) * 1e-9 / repeats);
  }
  return *std::min_element(rounds.begin(), rounds.end());
}

double attention_rate(Device device) {
  constexpr int64_t kRows = 512, kHeads = 12, kWidth = 64;
  const HeadLayout heads{kHeads, kHeads, kWidth};
  const Tensor host = zeros({kRows, heads.width()}, DType::kF32);
  for (int64_t i = 0; i < host.numel(); ++i)
    host.data<float>()[i] = static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 22) / 1024.0f - 0.5f;
  const Tensor qkv = to_device(host, device), starts = tensor_of<int32_t>({0, static_cast<int32_t>(kRows)}, {2});
  const Segments segments{starts, kRows, device.kind == DeviceKind::kCpu ? Tensor() : to_device(starts, device)};
  double best = 1e30;
  for (int round = 0; round < 4; ++round) {
    wait_for(device);
    const double start = now();
    attention(qkv, heads, segments);
    wait_for(device);
    if (round > 0) best = std::min(best, now() - start);
  }
  return 4.0 * kHeads * kWidth * (kRows * (kRows + 1) / 2.0) / best;
}

// Of the slowest rank.
double lowest(Communicator& world, double value) {
  const Tensor t = tensor_of<float>({static_cast<float>(value)}, {1});
  world.all_reduce(t, ReduceOp::kMin);
  return t.data<float>()[0];
}

constexpr struct {
  const char* key;
  double MachineRates::*value;
} kNumbers[] = {{"gemm_f32_flops", &MachineRates::gemm_f32},
                {"gemm_bf16_flops", &MachineRates::gemm_bf16},
                {"attention_flops", &MachineRates::attention},
                {"copy_bytes_per_s", &MachineRates::copy},
                {"read_bytes_per_s", &MachineRates::read}};
constexpr struct {
  const char* key;
  MatmulPrecision precision;
  double MachineRates::*value;
} kPrecisions[] = {{"gemm_bf16x3_flops", MatmulPrecision::kBf16x3, &MachineRates::gemm_bf16x3},
                   {"gemm_f32_as_bf16_flops", MatmulPrecision::kBf16, &MachineRates::gemm_rounded},
                   {"gemm_f32_as_f16_flops", MatmulPrecision::kF16, &MachineRates::gemm_rounded_f16}};

json::value group_to_json(const std::optional<GroupRates>& group) {
  if (!group) return nullptr;
  json::object o = {{"ranks", group->ranks}};
  for (CollectiveKind kind : kCollectiveKinds)
    o[name_of(kind)] = {{"latency_s", group->of(kind).latency_s}, {"bytes_per_s", group->of(kind).bytes_per_s}};
  return o;
}

std::optional<GroupRates> group_from_json(const JsonObject& rates, std::string_view key) {
  const std::optional<JsonObject> o = rates.optional_object(key);
  if (!o) return std::nullopt;
  o->allow_only({"ranks", "all_reduce", "all_gather", "reduce_scatter", "message"});
  GroupRates group;
  group.ranks = static_cast<int>(o->integer("ranks", 2, 1 << 24));
  for (CollectiveKind kind : kCollectiveKinds) {
    const JsonObject call = o->object(name_of(kind));
    call.allow_only({"latency_s", "bytes_per_s"});
    group.calls[static_cast<int>(kind)] = {call.number("latency_s", 0, 1e3), call.number("bytes_per_s", 1, 1e18)};
  }
  return group;
}

}  // namespace

double MachineRates::gemm(DType dtype, MatmulPrecision precision) const {
  for (const auto& p : kPrecisions)
    if (p.precision == precision) {
      check<ConfigError>(this->*p.value > 0, "the machine's rates have no ", p.key, ", which run.matmul_precision=",
                         name_of(precision), " needs; measure them by trireme doctor --json on a machine with ",
                         hardware_for(precision), ", or use run.matmul_precision=f32");
      return this->*p.value;
    }
  if (dtype == DType::kF16 && gemm_f16 > 0) return gemm_f16;
  return dtype == DType::kBF16 ? gemm_bf16 : gemm_f32;
}

const char* name_of(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllReduce: return "all_reduce";
    case CollectiveKind::kAllGather: return "all_gather";
    case CollectiveKind::kReduceScatter: return "reduce_scatter";
    case CollectiveKind::kMessage: return "message";
  }
  return "?";
}

double collective_seconds(CollectiveKind kind, const CallRate& rate, int ranks, double num_bytes) {
  if (ranks < 2) return 0;
  const Terms terms = terms_of(kind, ranks);
  return terms.hops * rate.latency_s + terms.share * num_bytes / rate.bytes_per_s;
}

CallRate fit_call_rate(CollectiveKind kind, int ranks, double small_bytes, double small_s, double large_bytes,
                       double large_s) {
  TRIREME_ASSERT(ranks >= 2 && small_bytes < large_bytes);
  const Terms terms = terms_of(kind, ranks);
  // On a busy machine the small call may come out the slower one: then all of the time is taken as bytes.
  const double slope = large_s > small_s ? (large_s - small_s) / (large_bytes - small_bytes) : large_s / large_bytes;
  return {std::max(0.0, small_s - slope * small_bytes) / terms.hops, terms.share / slope};
}

HostPlace host_place(Communicator& world) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const std::vector<std::string> hosts = world.all_gather_strings(host);
  HostPlace place{0, 0, 0, host};
  std::map<std::string, int> ranks;
  for (int r = 0; r < world.size(); ++r) {
    if (r == world.rank()) place.rank_on_host = ranks[hosts[r]];
    ++ranks[hosts[r]];
  }
  place.ranks_on_host = ranks[host];
  place.num_hosts = static_cast<int>(ranks.size());
  return place;
}

GroupRates measure_group_rates(Communicator& group, Device device) {
  TRIREME_ASSERT(group.size() >= 2);
  GroupRates rates;
  rates.ranks = group.size();
  for (CollectiveKind kind : kCollectiveKinds) {
    const double small = seconds_of(group, call_of(kind, group, kSmallBytes, device), 20, device);
    const double large = seconds_of(group, call_of(kind, group, kLargeBytes, device), 2, device);
    rates.calls[static_cast<int>(kind)] = fit_call_rate(kind, group.size(), kSmallBytes, small, kLargeBytes, large);
  }
  return rates;
}

MachineRates measure_machine_rates(Communicator& world, int threads, Device device) {
  MachineRates rates;
  const HostPlace place = host_place(world);
  rates.threads = threads;
  rates.ranks_per_host = place.ranks_on_host;
  const int before = num_threads();
  set_num_threads(threads);
  world.barrier();
  const bool cpu = device.kind == DeviceKind::kCpu;
  rates.gemm_f32 = lowest(world, cpu ? measure_gemm_rate(threads, MatmulPrecision::kF32)
                                     : measure_gemm_rate(device, threads, DType::kF32));
  rates.gemm_bf16 = lowest(world, measure_gemm_rate(device, threads, DType::kBF16));
  rates.gemm_f16 = lowest(world, measure_gemm_rate(device, threads, DType::kF16));
  for (const auto& p : kPrecisions)
    rates.*p.value = lowest(world, cpu && available(p.precision) ? measure_gemm_rate(threads, p.precision) : 0);
  rates.attention = lowest(world, attention_rate(device));
  const MemoryRate memory = measure_memory_rate(device, threads, size_t{64} << 20);
  rates.copy = lowest(world, memory.copy_bytes_per_s);
  rates.read = lowest(world, memory.read_bytes_per_s);
  set_num_threads(before);
  if (world.size() == 1) return rates;
  if (place.num_hosts == 1) {
    rates.within_host = measure_group_rates(world, device);
  } else {
    // Hosts are numbered by their first rank.
    const std::vector<std::string> hosts = world.all_gather_strings(place.host);
    const int host = static_cast<int>(std::find(hosts.begin(), hosts.end(), place.host) - hosts.begin());
    const auto within = world.split(host, world.rank(), "host");
    const auto between = world.split(place.rank_on_host, world.rank(), "hosts");
    if (lowest(world, place.ranks_on_host) >= 2) rates.within_host = measure_group_rates(*within, device);
    // Of the first ranks of the hosts, while the others wait.
    if (place.rank_on_host == 0) rates.between_hosts = measure_group_rates(*between, device);
  }
  const json::value agreed = parse_json(world.broadcast_string(trireme::to_json(json::value(to_json(rates))), 0), "rates");
  return machine_rates_from_json(JsonObject(agreed, "rates"));
}

MachineRates measure_machine_rates_alone(int threads, int ranks_per_host, Device device) {
  const auto self = make_self_communicator();
  MachineRates rates = measure_machine_rates(*self, threads, device);
  rates.ranks_per_host = ranks_per_host;
  if (device.kind == DeviceKind::kCpu) {  // which share its memory
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const MemoryRate memory = measure_memory_rate(std::min(cores, threads * ranks_per_host), size_t{64} << 20);
    rates.copy = memory.copy_bytes_per_s / ranks_per_host;
    rates.read = memory.read_bytes_per_s / ranks_per_host;
  }
  std::mutex mutex;
  run_ranks(2, [&](Communicator& world) {
    const GroupRates group = measure_group_rates(world);
    std::lock_guard lock(mutex);
    if (world.rank() == 0) rates.within_host = group;
  });
  return rates;
}

json::object to_json(const MachineRates& rates) {
  json::object o = {{"threads", rates.threads}, {"ranks_per_host", rates.ranks_per_host}};
  for (const auto& number : kNumbers) o[number.key] = rates.*number.value;
  if (rates.gemm_f16 > 0) o["gemm_f16_flops"] = rates.gemm_f16;
  for (const auto& p : kPrecisions)
    if (rates.*p.value > 0) o[p.key] = rates.*p.value;
  o["within_host"] = group_to_json(rates.within_host);
  o["between_hosts"] = group_to_json(rates.between_hosts);
  return o;
}

MachineRates machine_rates_from_json(const JsonObject& o) {
  o.allow_only({"threads", "ranks_per_host", "gemm_f32_flops", "gemm_bf16_flops", "gemm_f16_flops", "gemm_bf16x3_flops", "gemm_f32_as_bf16_flops",
                "gemm_f32_as_f16_flops", "attention_flops", "copy_bytes_per_s", "read_bytes_per_s", "within_host", "between_hosts"});
  MachineRates rates;
  rates.threads = static_cast<int>(o.integer("threads", 1, 4096));
  rates.ranks_per_host = static_cast<int>(o.integer("ranks_per_host", 1, 1 << 20));
  for (const auto& number : kNumbers) rates.*number.value = o.number(number.key, 1, 1e21);
  if (o.has("gemm_f16_flops")) rates.gemm_f16 = o.number("gemm_f16_flops", 1, 1e21);
  for (const auto& p : kPrecisions)
    if (o.has(p.key)) rates.*p.value = o.number(p.key, 1, 1e21);
  rates.within_host = group_from_json(o, "within_host");
  rates.between_hosts = group_from_json(o, "between_hosts");
  return rates;
}

MachineRates load_machine_rates(const std::filesystem::path& path) {
  const json::value value = read_json_file(path, 1 << 20);
  const JsonObject file(value, path.string());
  return machine_rates_from_json(file.has("rates") ? file.object("rates") : file);
}

}  // namespace trireme
