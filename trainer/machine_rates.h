// What a machine does in a second, as one rank of a job sees it: products, row-wise work, collectives. Measured, or read
// from a file; what a run's time is predicted from and its profile compared with.
//
// A collective over p ranks of a tensor of n bytes (the whole one: the input of reduce_scatter, the output of all_gather)
// takes                                                               [Thakur et al. 2005, doi:10.1177/1094342005051521]
//   all_reduce                      2 ceil(log2 p) latency + 2 (p-1)/p n / rate
//   all_gather, reduce_scatter        ceil(log2 p) latency +   (p-1)/p n / rate
//   message                                        latency +           n / rate
// Latency and rate of each are fitted to a small and a large call over the ranks that were there.
#pragma once

#include <boost/json/object.hpp>

#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "comm/communicator.h"
#include "tensor/dtype.h"
#include "tensor/gemm.h"

namespace trireme {

struct CallRate {
  double latency_s = 0;
  double bytes_per_s = 0;
  bool operator==(const CallRate&) const = default;
};

enum class CollectiveKind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kMessage };
constexpr CollectiveKind kCollectiveKinds[] = {CollectiveKind::kAllReduce, CollectiveKind::kAllGather,
                                               CollectiveKind::kReduceScatter, CollectiveKind::kMessage};
const char* name_of(CollectiveKind kind);  // "all_reduce", "all_gather", "reduce_scatter", "message"

// The formula above. 0 for one rank.
double collective_seconds(CollectiveKind kind, const CallRate& rate, int ranks, double num_bytes);
// Its inverse for two measured times. REQUIRES: ranks >= 2, small_bytes < large_bytes.
CallRate fit_call_rate(CollectiveKind kind, int ranks, double small_bytes, double small_s, double large_bytes,
                       double large_s);

// Of the groups whose ranks are all on one host, or all on different ones.
struct GroupRates {
  int ranks = 0;  // of the group that was measured
  CallRate calls[4];
  const CallRate& of(CollectiveKind kind) const { return calls[static_cast<int>(kind)]; }
  bool operator==(const GroupRates&) const = default;
};

struct MachineRates {
  int threads = 1;         // of a rank
  int ranks_per_host = 1;  // that worked at once
  // Of one rank.
  double gemm_f32 = 0, gemm_bf16 = 0;  // FLOP/s of a large product
  double gemm_f16 = 0;                 // the same; 0 in files that do not have it: as f32
  // Of f32 operands with MatmulPrecision kBf16x3, kBf16, kF16; 0: not on this machine.
  double gemm_bf16x3 = 0, gemm_rounded = 0, gemm_rounded_f16 = 0;
  double attention = 0;                // FLOP/s of causal attention in f32, forward, head size 64, 512 rows
  double copy = 0, read = 0;           // bytes/s: see MemoryRate
  std::optional<GroupRates> within_host, between_hosts;

  // Throws ConfigError where the precision was not measured.
  double gemm(DType dtype, MatmulPrecision precision) const;
  bool operator==(const MachineRates&) const = default;
};

// All ranks measure at once; the slowest counts, and all get the same figures. Collective, a few seconds. within_host is there where every host has at
// least two ranks, between_hosts where there are two hosts.
// Products, attention and copies are those of `device`, which the calling thread has selected.
MachineRates measure_machine_rates(Communicator& world, int threads, Device device = Device::cpu());
// By one process alone: products at `threads` threads, the memory of the host shared out among `ranks_per_host` such
// ranks, collectives between two threads. Those of real ranks differ: measure_machine_rates() is better.
// On a CUDA device, whose memory no other rank shares, collectives are still those of two threads on the CPU.
MachineRates measure_machine_rates_alone(int threads, int ranks_per_host, Device device = Device::cpu());
// Of this group alone, tensors on `device`. REQUIRES: size() >= 2. Collective.
GroupRates measure_group_rates(Communicator& group, Device device = Device::cpu());
// Ranks of this rank's host, and hosts in all. Collective.
struct HostPlace {
  int ranks_on_host = 1, num_hosts = 1;
  int rank_on_host = 0;
  std::string host;
};
HostPlace host_place(Communicator& world);

boost::json::object to_json(const MachineRates& rates);
// Throws FileError for what is missing, of a wrong type or not above 0.
MachineRates machine_rates_from_json(const JsonObject& object);
// A file of `trireme doctor --json`, or the object under its key "rates" alone. Throws FileError.
MachineRates load_machine_rates(const std::filesystem::path& path);

}  // namespace trireme
