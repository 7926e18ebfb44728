#include "launch/doctor_cuda.h"

#include <cstdio>

#include "comm/nccl.h"
#include "tensor/gemm_table.h"
#include "trainer/device.h"

namespace trireme {
namespace {

namespace json = boost::json;

std::string version_of(int number) { return text(number / 1000, ".", number % 1000 / 10); }

std::string words_of(const cuda::PeerLink& link) {
  if (!link.access) return "no peer access: copies go through host memory";
  return text("peer access, performance rank ", link.performance_rank,
              link.native_atomics ? ", native atomics (as NVLink has)" : ", no native atomics (as over PCIe)");
}

}  // namespace

CudaFacts measure_cuda(Communicator& world) {
  CudaFacts facts;
  const ChosenDevice chosen = choose_device(DeviceChoice::kAuto, "", world);
  if (chosen.device.kind != DeviceKind::kCuda) {
    // "cpu (why not)"
    const size_t open = chosen.description.find('(');
    facts.unavailable = open == std::string::npos
                            ? chosen.description
                            : chosen.description.substr(open + 1, chosen.description.size() - open - 2);
    return facts;
  }
  const int count = cuda::device_count();
  for (int i = 0; i < count; ++i) {
    const cuda::DeviceScope scope(i);
    facts.devices.push_back({cuda::device_properties(i), cuda::device_memory().free_bytes});
    for (int other = 0; other < i; ++other) facts.links.push_back({other, i, cuda::peer_link(other, i)});
  }
  facts.versions = cuda::versions();
  const nccl::Library& library = nccl::library();
  facts.has_nccl = library.problem.empty();
  facts.nccl = facts.has_nccl ? text(nccl::version_text(library.version), " (", library.path, ")") : library.problem;
  facts.shared = chosen.warning;
  if (world.size() > 1) facts.exchange = world.connect_devices();
  world.barrier();
  facts.gemm_bf16 = measure_gemm_rate(chosen.device, 1, DType::kBF16);
  facts.gemm_f32 = measure_gemm_rate(chosen.device, 1, DType::kF32);
  facts.copy = measure_memory_rate(chosen.device, 1).copy_bytes_per_s;
  facts.host_link = measure_host_link_rate(chosen.device);
  world.barrier();
  if (world.size() > 1) facts.group = measure_group_rates(world, chosen.device);
  return facts;
}

void print_text(const CudaFacts& facts) {
  if (!facts.unavailable.empty()) {
    std::printf("\ncuda       none: %s\n", facts.unavailable.c_str());
    return;
  }
  std::printf("\ncuda       driver for CUDA %s, runtime %s; NCCL %s\n", version_of(facts.versions.driver).c_str(),
              version_of(facts.versions.runtime).c_str(), facts.nccl.c_str());
  for (size_t i = 0; i < facts.devices.size(); ++i) {
    const auto& [p, free_bytes] = facts.devices[i];
    std::printf("  cuda:%zu   %s, compute capability %d.%d, %d multiprocessors, %.1f of %.1f GiB free\n", i, p.name.c_str(),
                p.major, p.minor, p.multiprocessors, static_cast<double>(free_bytes) / (1 << 30),
                static_cast<double>(p.memory_bytes) / (1 << 30));
  }
  for (const auto& [from, to, link] : facts.links)
    std::printf("  cuda:%d to cuda:%d   %s\n", from, to, words_of(link).c_str());
  if (!facts.exchange.empty()) std::printf("  ranks exchange tensors on devices by %s\n", facts.exchange.c_str());
  std::printf("  large product        bf16 %.1f TFLOP/s, f32 %.1f TFLOP/s\n", facts.gemm_bf16 / 1e12, facts.gemm_f32 / 1e12);
  std::printf("  device memory        copy %.0f GB/s (read and written together)\n", facts.copy / 1e9);
  std::printf("  host memory, pinned  to the device %.1f GB/s, from it %.1f GB/s\n", facts.host_link.to_device / 1e9,
              facts.host_link.from_device / 1e9);
  if (!facts.group) return;
  std::printf("  collectives, %d ranks: time = hops * latency + share * bytes / rate\n", facts.group->ranks);
  for (CollectiveKind kind : kCollectiveKinds) {
    const CallRate& call = facts.group->of(kind);
    std::printf("  %-16s %8.1f us %8.2f GB/s\n", name_of(kind), call.latency_s * 1e6, call.bytes_per_s / 1e9);
  }
}

json::object to_json_object(const CudaFacts& facts) {
  if (!facts.unavailable.empty()) return {{"unavailable", facts.unavailable}};
  json::object o{{"driver", version_of(facts.versions.driver)},
                 {"runtime", version_of(facts.versions.runtime)},
                 {"nccl", facts.nccl},
                 {"exchange", facts.exchange},
                 {"gemm_bf16_flops", facts.gemm_bf16},
                 {"gemm_f32_flops", facts.gemm_f32},
                 {"copy_bytes_per_s", facts.copy},
                 {"to_device_bytes_per_s", facts.host_link.to_device},
                 {"from_device_bytes_per_s", facts.host_link.from_device}};
  json::array devices, links;
  for (const auto& [p, free_bytes] : facts.devices)
    devices.push_back({{"name", p.name}, {"compute_capability", text(p.major, ".", p.minor)},
                       {"multiprocessors", p.multiprocessors}, {"memory_bytes", p.memory_bytes}, {"free_bytes", free_bytes}});
  for (const auto& [from, to, link] : facts.links)
    links.push_back({{"from", from}, {"to", to}, {"peer_access", link.access}, {"performance_rank", link.performance_rank},
                     {"native_atomics", link.native_atomics}});
  o["devices"] = std::move(devices);
  o["links"] = std::move(links);
  if (facts.group) {
    json::array calls;
    for (CollectiveKind kind : kCollectiveKinds) {
      const CallRate& call = facts.group->of(kind);
      calls.push_back({{"call", name_of(kind)}, {"latency_s", call.latency_s}, {"bytes_per_s", call.bytes_per_s}});
    }
    o["collectives"] = std::move(calls);
  }
  return o;
}

std::vector<Finding> find_problems(const CudaFacts& facts) {
  std::vector<Finding> found;
  for (size_t i = 0; i < facts.devices.size(); ++i) {
    const auto& [p, free_bytes] = facts.devices[i];
    if (p.major < 8)
      found.push_back({text("cuda:", i, " (", p.name, ") has compute capability ", p.major, ".", p.minor),
                       "kernels are built for 8.0 and later, and need its bf16 products",
                       "use another device (CUDA_VISIBLE_DEVICES), or run.device=cpu"});
    if (free_bytes < p.memory_bytes / 10 * 9)
      found.push_back({text("of the memory of cuda:", i, " ", (p.memory_bytes - free_bytes) >> 20, " MiB are in use"),
                       "a run may not find room for its tensors, and shares the device's time",
                       "see nvidia-smi for who holds them"});
  }
  if (!facts.shared.empty())
    found.push_back({facts.shared.substr(0, facts.shared.find(',')), "they compute one after another, and exchange tensors through host memory",
                     "start one rank a device"});
  else if (facts.group && facts.exchange.rfind("NCCL", 0) != 0)
    found.push_back({text("ranks exchange tensors by ", facts.exchange),
                     "each collective then crosses to the host and back",
                     facts.has_nccl ? "see the reason above" : "install NCCL, or set NCCL_HOME to where it is"});
  for (const auto& [from, to, link] : facts.links)
    if (!link.access)
      found.push_back({text("cuda:", from, " and cuda:", to, " have no peer access"),
                       "what they exchange crosses to the host and back",
                       "check the machine's topology (nvidia-smi topo -m) and whether a virtual machine hides it"});
  if (!facts.devices.empty() && facts.host_link.to_device < 10e9)
    found.push_back({text("copies to the device reach ", static_cast<int>(facts.host_link.to_device / 1e8) / 10.0, " GB/s"),
                     "batches, checkpoints and exchange through host memory wait for them",
                     "check the width and generation of the device's PCIe link (nvidia-smi -q)"});
  return found;
}

}  // namespace trireme
